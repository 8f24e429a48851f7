"""One GGUF file, which llama.cpp loads: header and metadata by the `gguf` package, then the tensors, piece by piece."""

from math import prod
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor

from spoutnik.export.gguf_layout import Planned, gguf_tensors
from spoutnik.export.gguf_metadata import write_metadata
from spoutnik.export.gguf_tokens import write_tokens
from spoutnik.export.model_card import Provenance
from spoutnik.export.tensors import DTYPES, converted, raw, rows
from spoutnik.files import read_json
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.gguf_names import ARCHITECTURES
from spoutnik.model.weights import Reader
from spoutnik.text.tokenizer import Tokenizer

TYPES = {"f32": Type.F32, "bf16": Type.BF16, "f16": Type.F16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0}
_FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "bf16": gguf.LlamaFileType.MOSTLY_BF16,
               "f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
               "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0}
_PLAIN = {Type.F32: DTYPES["f32"], Type.BF16: DTYPES["bf16"], Type.F16: DTYPES["f16"]}
_ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT


def tensor_type(planned: Planned, dtype: str) -> Type:
    """What llama.cpp stores this tensor as in a file of `dtype`: vectors, norms and routers in float32, rows that do not
    divide into blocks in float16, embedding and head with 8 bits at least."""
    requested = TYPES[dtype]
    if len(planned.shape) == 1 or planned.name.endswith("ffn_gate_inp.weight"):
        return Type.F32
    if requested in _PLAIN:
        return requested
    if planned.shape[-1] % gguf.GGML_QUANT_SIZES[requested][0]:
        return Type.F16
    return Type.Q8_0 if planned.name in ("token_embd.weight", "output.weight") else requested


def tensor_bytes(planned: Planned, kind: Type) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return prod(planned.shape) // block * size


def file_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """About what the file will take; metadata and padding not counted."""
    return sum(tensor_bytes(planned, tensor_type(planned, dtype)) for planned in gguf_tensors(checkpoint.config))


def write_file(path: Path, checkpoint: Checkpoint, tokenizer: Tokenizer | None, dtype: str, provenance: Provenance) -> None:
    """Writes the whole file. tokenizer: None where there is none; the file then serves token ids only. dtype: one of TYPES.

    Raises:
        RunError: numbers do not fit `dtype`.
    """
    config = checkpoint.config
    planned = [(tensor, tensor_type(tensor, dtype)) for tensor in gguf_tensors(config)]
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config.model_type])
    _write_general(writer, checkpoint, dtype, provenance)
    write_metadata(writer, config)
    if tokenizer is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        write_tokens(writer, tokenizer, config.vocab_size)
    for tensor, kind in planned:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor_bytes(tensor, kind), raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    reader = Reader(checkpoint)
    with open(path, "ab") as file:
        for tensor, kind in planned:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            for piece in tensor.read(reader):
                for matrix in rows(piece):
                    file.write(encoded(matrix, kind, tensor.name))
        file.write(bytes(-file.tell() % _ALIGNMENT))
    reader.check()


def encoded(matrix: Tensor, kind: Type, name: str) -> memoryview:
    """The bytes of rows of a tensor, in the type they are stored as."""
    if kind in _PLAIN:
        return raw(converted(matrix, _PLAIN[kind], name))
    return memoryview(gguf.quants.quantize(matrix.to(torch.float32).contiguous().numpy(), kind)).cast("B")


def _write_general(writer: gguf.GGUFWriter, checkpoint: Checkpoint, dtype: str, provenance: Provenance) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(provenance.name)
    writer.add_license(provenance.licence)
    writer.add_file_type(_FILE_TYPES[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    settings = checkpoint.folder / "generation_config.json"
    sampling = read_json(settings) if settings.exists() else {"temperature": 0.6, "top_p": 0.95}
    if isinstance(sampling.get("temperature"), int | float):
        writer.add_sampling_temp(sampling["temperature"])
    if isinstance(sampling.get("top_p"), int | float):
        writer.add_sampling_top_p(sampling["top_p"])
