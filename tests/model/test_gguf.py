"""GGUF files piece by piece: every type against the `gguf` package, the header, and what is refused."""

import re

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from spoutnik.errors import RunError, UserError
from spoutnik.gguf_folder import gguf_folder
from spoutnik.loading import load_tokenizer
from spoutnik.model.gguf_decode import decode, halves
from spoutnik.model.gguf_header import TYPES, read_gguf_header
from spoutnik.model.stored import Encoding
from spoutnik.model.weight_file import WeightFile

HIDDEN, HEADS = 64, 4
KEYS = {"block_count": 1, "context_length": 64, "embedding_length": HIDDEN, "feed_forward_length": 32,
        "attention.head_count": HEADS, "attention.layer_norm_rms_epsilon": 1e-5}
SHAPES = {"token_embd.weight": (8, HIDDEN), "output_norm.weight": (HIDDEN,), "blk.0.attn_norm.weight": (HIDDEN,),
          "blk.0.ffn_norm.weight": (HIDDEN,), "blk.0.attn_q.weight": (HIDDEN, HIDDEN), "blk.0.attn_k.weight": (HIDDEN, HIDDEN),
          "blk.0.attn_v.weight": (HIDDEN, HIDDEN), "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
          "blk.0.ffn_gate.weight": (32, HIDDEN), "blk.0.ffn_up.weight": (32, HIDDEN), "blk.0.ffn_down.weight": (HIDDEN, 32)}


def write(path, architecture="llama", shapes=SHAPES, types=None, **keys):
    """A file of zeros without a vocabulary. keys: of the architecture, or whole ones; None leaves one out."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in (KEYS | keys).items():
        name = name if name.startswith(("general.", "split.")) else f"{architecture}.{name}"
        if value is not None:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
                   list: writer.add_array}[type(value)]
            add(name, value)
    writer.add_tokenizer_model("no_vocab")
    for name, shape in shapes.items():
        kind = (types or {}).get(name, Type.F32)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor(name, np.zeros((*shape[:-1], shape[-1] // block * size), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_decoded_as_the_gguf_package_does(tmp_path, kind):
    """On random bytes, of which some are no numbers; in pieces that are smaller than the tensor."""
    number, block, nbytes = TYPES[kind]
    assert (number, block, nbytes) == (Type[kind], *gguf.GGML_QUANT_SIZES[Type[kind]])
    rows, width = 1100, 1024
    content = np.random.default_rng(0).integers(0, 256, (rows, width // block * nbytes), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("x", content, raw_dtype=Type[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    placed = read_gguf_header(tmp_path / "x.gguf").tensors["x"]
    assert placed[:2] == (kind, (rows, width)) and placed.size == content.nbytes
    target = torch.empty(rows, width)
    with np.errstate(all="ignore"):
        decode(WeightFile(tmp_path / "x.gguf"), Encoding((placed,)), target)
        expected = gguf.quants.dequantize(content, Type[kind])
    assert np.array_equal(target.numpy(), expected, equal_nan=True)


def test_metadata_is_what_the_gguf_package_reads(tmp_path):
    path = write(tmp_path / "x.gguf", **{"general.name": "Été", "general.tags": ["a", "日本"], "general.sizes": [1, -2, 3],
                                         "general.scores": [0.5, -1.5], "general.flag": True})
    header, reader = read_gguf_header(path), gguf.GGUFReader(path)
    expected = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert header.metadata == expected
    assert {name: placed.start for name, placed in header.tensors.items()} == {
        tensor.name: tensor.data_offset for tensor in reader.tensors}


def test_pairs_of_rotated_rows_become_halves():
    """Row 2i and 2i + 1 of a head are pair i, which the published order has at i and i + width/2."""
    assert halves(np.arange(12)[:, None], 2)[:, 0].tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


@pytest.mark.parametrize("keys, error, words", [
    ({"architecture": "gemma3"}, UserError, "general.architecture = 'gemma3'"),
    ({"general.type": "adapter", "architecture": "clip"}, UserError, "is an adapter, not a model"),
    ({"split.count": 3}, UserError, "one of 3 parts"), ({"types": {"blk.0.attn_v.weight": Type.IQ4_NL}}, UserError, "IQ4_NL"),
    ({"block_count": None}, RunError, "llama.block_count is missing"), ({"block_count": 2}, RunError, "blk.1.attn_norm.weight"),
    ({"expert_count": 8}, UserError, "llama.expert_count = 8"),
    ({"rope.dimension_count": 8}, UserError, "llama.rope.dimension_count = 8"),
    ({"attention.sliding_window": 16}, UserError, "sliding_window = 16"), ({"embedding_length": 32}, RunError, "has shape"),
    ({"rope.scaling.type": "longrope", "rope.scaling.factor": 4.0}, UserError, "longrope"),
    ({"attention.head_count": [4, 2]}, UserError, "head_count = [4, 2]"),
    ({"attention.head_count": 0}, RunError, "llama.attention.head_count = 0: must be 1 or more"),
    ({"feed_forward_length": "wide"}, RunError, "llama.feed_forward_length = 'wide': must be a number"),
    ({"attention.layer_norm_rms_epsilon": float("nan")}, RunError, "rms_epsilon = nan: must be a number"),
    ({"rope.freq_base": 0.0}, RunError, "rope.freq_base = 0.0: must be above 0"),
    ({"rope.scaling.type": 3}, RunError, "rope.scaling.type = 3: must be a text"),
    ({"rope.scaling.type": "yarn", "rope.scaling.factor": -2.0, "rope.scaling.original_context_length": 32}, UserError,
     "rope.scaling.factor = -2.0"),
    ({"block_count": 4_000_000_000}, RunError, "llama.block_count = 4000000000: is more than its 11 tensors"),
    ({"shapes": SHAPES | {"blk.0.new.weight": (4, 4)}}, RunError, "blk.0.new.weight"),
    ({"shapes": SHAPES | {"rope_freqs.weight": (8,)}}, UserError, "rope_freqs.weight"),
    ({"shapes": {"x": (4, 4)}}, RunError, "token_embd.weight")], ids=lambda value: "-".join(value) if isinstance(value, dict)
    else None)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path, keys, error, words):
    path = write(tmp_path / "x.gguf", **keys)
    with pytest.raises(error) as caught:
        gguf_folder(path)
    assert words in str(caught.value) and str(caught.value).startswith(f"{path}: ") and str(caught.value).endswith(".")


def test_a_file_without_a_tokenizer_is_named_where_one_is_needed(tmp_path):
    """And not the folder of the cache, which nobody can restore."""
    path = write(tmp_path / "x.gguf")
    with pytest.raises(RunError, match=rf"^{re.escape(str(path))}: holds no tokenizer .* folder of safetensors\.$"):
        load_tokenizer(gguf_folder(path))


def test_keys_that_are_not_known_are_named(tmp_path, capsys):
    path = write(tmp_path / "x.gguf", **{"attention.new_key": 4, "rope.freq_base": 500.0})
    assert (gguf_folder(path) / "config.json").exists()
    assert "llama.attention.new_key: not known here" in capsys.readouterr().err


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path):
    path = write(tmp_path / "x.gguf")
    content = path.read_bytes()
    end = max(placed.start + placed.size for placed in read_gguf_header(path).tensors.values())
    for length in [*range(0, 2000, 7), end // 2, end - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(RunError, match="Fetch it again"):
            read_gguf_header(path)


@pytest.mark.parametrize("content, error, words", [
    (b"PK\x03\x04 something else", RunError, "is no GGUF file"), (b"GGUF\x00\x00\x00\x03" + bytes(16), UserError, "version"),
    (b"GGUF\x01\x00\x00\x00" + bytes(16), UserError, "version 1"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", RunError, "git"),
    (b"GGUF\x03\x00\x00\x00" + bytes(8) + b"\xff" * 8, RunError, "damaged")],
    ids=["other", "big-endian", "version-1", "pointer", "count"])
def test_other_files_are_refused(tmp_path, content, error, words):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(error, match=words):
        read_gguf_header(path)


def test_a_file_that_is_gone_is_named(tmp_path):
    from spoutnik.model.checkpoint import Checkpoint
    path = write(tmp_path / "x.gguf")
    folder = gguf_folder(path)
    path.unlink()
    with pytest.raises(RunError, match=f"{path}: not found"):
        Checkpoint.open(folder)


def test_a_cache_that_cannot_be_written_is_replaced_for_the_process(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = gguf_folder(write(tmp_path / "x.gguf"))
    assert folder.name == "x" and not folder.is_relative_to(tmp_path) and gguf_folder(tmp_path / "x.gguf") == folder
