"""A folder in Hugging Face layout, which transformers loads as it is. A tensor that keeps its type keeps its bits."""

import json
import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path

from tokenizers import Tokenizer as BPE
from tokenizers.processors import TemplateProcessing

from spoutnik.export.gguf_tokens import split_name
from spoutnik.export.tensors import DTYPES, converted, raw, rows, weight
from spoutnik.files import read_json, write_json
from spoutnik.model.checkpoint import ITEM_SIZES, Checkpoint
from spoutnik.model.config import ModelConfig
from spoutnik.model.layout import SCALE
from spoutnik.model.weights import Reader, stored_dtype
from spoutnik.text.tokenizer import Tokenizer

SAFETENSORS_TYPES = {"f32": "F32", "bf16": "BF16", "f16": "F16"}
# transformers (5.x) takes every tokenizer beside a qwen2 model for Qwen's and splits text as Qwen does, unless its settings
# name code of its own. That code is not run, nor is it there: the tokenizer is then taken as it is written. The name is what
# a user reads who asks for foreign code all the same.
_AS_WRITTEN = {"AutoTokenizer": ["load_without_trust_remote_code.PreTrainedTokenizerFast"] * 2}


@dataclass(frozen=True)
class Entry:
    """One tensor of the new files. dtype: safetensors' name for its type."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape) * ITEM_SIZES[self.dtype]


def entries(checkpoint: Checkpoint, dtype: str | None) -> list[Entry]:
    """What to write: every tensor as stored (bfloat16 for GGUF's blocks) where `dtype` is None, else in that type and no
    longer in FP8 blocks. The correction bias is float32 in any case: bfloat16 would undo its small steps."""
    if dtype is None:
        return [Entry(name, "BF16" if stored.is_blocks else stored.dtype, stored.shape)
                for name, stored in checkpoint.tensors.items()]
    return [Entry(name, "F32" if name.endswith("e_score_correction_bias") else SAFETENSORS_TYPES[dtype], stored.shape)
            for name, stored in checkpoint.tensors.items() if not name.endswith(SCALE)]


def shards(planned: list[Entry], limit: int) -> list[list[Entry]]:
    """The entries in files of at most `limit` bytes, in order; a tensor that is larger has a file of its own."""
    result: list[list[Entry]] = [[]]
    filled = 0
    for entry in planned:
        if result[-1] and filled + entry.size > limit:
            result.append([])
            filled = 0
        result[-1].append(entry)
        filled += entry.size
    return result


def write_folder(folder: Path, checkpoint: Checkpoint, tokenizer: Tokenizer, dtype: str | None, shard_size: int,
                 card: str, reader: Reader | None = None) -> None:
    """Writes everything into `folder`, which is empty and gets its name when it is finished.

    dtype: "f32", "bf16", "f16" or None for the stored types. shard_size: bytes. card: the text of README.md. reader: of the
    weights, where they are not the checkpoint's own.
    """
    config = checkpoint.config
    if dtype is not None:
        config = config.model_copy(update={"quantization_config": None})
    named = DTYPES[dtype] if dtype else stored_dtype(checkpoint)
    _write_object(folder / "config.json", config.published(str(named).removeprefix("torch.")))
    declares_start(tokenizer).save(folder)
    if splits_unlike_qwen(config, tokenizer):
        write_json(folder / "tokenizer_config.json", read_json(folder / "tokenizer_config.json") | {"auto_map": _AS_WRITTEN})
    _write_generation_config(folder, checkpoint.folder, tokenizer)
    (folder / "README.md").write_text(card, encoding="utf-8")
    for pattern in ("LICENSE*", "LICENCE*", "NOTICE*"):
        for file in checkpoint.folder.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    _write_weights(folder, reader or Reader(checkpoint), shards(entries(checkpoint, dtype), shard_size))


def declares_start(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with a post-processor that puts what belongs before a text (`start_ids`), and `add_bos_token`, where its
    own files do not say it: readers then begin a prompt as documents began in training."""
    if tokenizer.states_start:
        return tokenizer
    bpe = BPE.from_str(tokenizer.bpe.to_str())
    tokens = [(bpe.id_to_token(i), i) for i in tokenizer.start_ids]
    names = [name for name, _ in tokens]
    bpe.post_processor = TemplateProcessing(single=[*names, "$A"], pair=[*names, "$A", "$B"], special_tokens=tokens)
    config = tokenizer.config | {"add_bos_token": tokenizer.bos_id in tokenizer.start_ids}
    return Tokenizer(bpe, tokenizer.templates, config, tokenizer.eos_ids)


def splits_unlike_qwen(config: ModelConfig, tokenizer: Tokenizer) -> bool:
    """Whether this is a qwen2 model with a tokenizer that is not Qwen's."""
    return config.model_type == "qwen2" and split_name(tokenizer)[0] != "qwen2"


def _write_generation_config(folder: Path, source: Path, tokenizer: Tokenizer) -> None:
    """The source's own settings where it has some, else R1's: T 0.6, top-p 0.95."""
    if (source / "generation_config.json").exists():
        shutil.copyfile(source / "generation_config.json", folder / "generation_config.json")
        return
    eos = tokenizer.eos_ids if len(tokenizer.eos_ids) > 1 else tokenizer.eos_id
    write_json(folder / "generation_config.json", {"do_sample": True, "temperature": 0.6, "top_p": 0.95,
                                                   "bos_token_id": tokenizer.bos_id, "eos_token_id": eos})


def _write_weights(folder: Path, reader: Reader, files: list[list[Entry]]) -> None:
    if len(files) == 1:
        write_safetensors(folder / "model.safetensors", files[0], reader)
        return
    weight_map = {}
    for number, planned in enumerate(files, start=1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        write_safetensors(folder / name, planned, reader)
        weight_map |= {entry.name: name for entry in planned}
    total = sum(entry.size for planned in files for entry in planned)
    _write_object(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_safetensors(path: Path, planned: list[Entry], reader: Reader) -> None:
    """One file of the format: 8 bytes with the header's length, a JSON header, the tensors without holes. Wide types come
    first, so that every tensor lies at a multiple of its item size and can be mapped."""
    planned = sorted(planned, key=lambda entry: -ITEM_SIZES[entry.dtype])
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for entry in planned:
        header[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [position, position + entry.size]}
        position += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in planned:
            _copy(file, entry, reader)
    reader.check()


def _copy(file, entry: Entry, reader: Reader) -> None:
    if entry.dtype == reader.checkpoint.tensors[entry.name].dtype:
        for piece in rows(reader.read(entry.name)):
            file.write(raw(piece))
        return
    dtype = next(DTYPES[short] for short, name in SAFETENSORS_TYPES.items() if name == entry.dtype)
    for piece in rows(weight(reader, entry.name)):
        file.write(raw(converted(piece, dtype, entry.name)))


def _write_object(path: Path, value: dict) -> None:
    """JSON in the order given: people read these files."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
