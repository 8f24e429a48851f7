"""Everything that can be wrong with a checkpoint's files is a sentence, said from the headers alone.

(Missing tensors and shards, other shapes, truncated files: test_weights.py. Other quantizations: test_fp8.py.)
"""

import json
import os

import pytest
import sparse_files
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import RunError
from spoutnik.hub import _has_weights
from spoutnik.model.checkpoint import Checkpoint, read_header, weight_files
from spoutnik.model.layout import SCALE, published_shapes
from spoutnik.serve.api.model_facts import weights_size

FP8 = {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128],
                               "activation_scheme": "dynamic"}}
NORM = "model.norm.weight"


@pytest.fixture
def folder(tmp_path):
    sparse_files.write_checkpoint(tmp_path, tiny.DEEPSEEK)
    return tmp_path


def rewrite(folder, values: dict = tiny.DEEPSEEK, **changes) -> None:
    """The one file of `folder` anew, each tensor named (with __ for .) in another (type, shape), or left out for None."""
    tensors = sparse_files.tensors_of(values)
    for name, changed in changes.items():
        tensors[name.replace("__", ".")] = changed
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    sparse_files.write_file(folder / "model.safetensors", sparse_files.header(kept))


def refusal(folder) -> str:
    with pytest.raises(RunError) as error:
        Checkpoint.open(folder)
    message = str(error.value)
    assert str(folder) in message and message.endswith(".")
    return message


@pytest.mark.parametrize("base", tiny.ALL.values(), ids=tiny.ALL)
@pytest.mark.parametrize("files", [1, 3])
def test_a_whole_checkpoint_is_opened(base, files, tmp_path):
    sparse_files.write_checkpoint(tmp_path, base, files)
    checkpoint = Checkpoint.open(tmp_path)
    config = tiny.config(base)
    assert checkpoint.config == config
    assert {name: stored.shape for name, stored in checkpoint.tensors.items()} == published_shapes(config)
    assert {stored.dtype for stored in checkpoint.tensors.values()} <= {"BF16", "F32"}
    assert len({stored.file for stored in checkpoint.tensors.values()}) == files


def test_tensors_lie_one_after_another_behind_the_header(folder):
    path = folder / "model.safetensors"
    tensors, metadata = read_header(path)
    assert metadata == {"format": "pt"}
    begin = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    first, second = list(tensors.values())[:2]
    assert (first.start, second.start) == (begin, begin + first.size) and first.size == 2 * 64 * 32
    assert begin + sum(stored.size for stored in tensors.values()) == path.stat().st_size


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_a_weight_may_be_stored_in_any_type_that_holds_weights(folder, dtype):
    rewrite(folder, model__norm__weight=(dtype, (32,)))
    assert Checkpoint.open(folder).tensors[NORM].dtype == dtype


@pytest.mark.parametrize("dtype", ["I32", "U8", "F8_E4M3", "F8_E5M2", "BOOL", "I64"])
def test_a_weight_in_another_type_is_named_with_it(folder, dtype):
    rewrite(folder, model__norm__weight=(dtype, (32,)))
    assert f"{NORM} is stored as {dtype}, where F32 or BF16 or F16 or F64 was expected" in refusal(folder)


def test_a_tensor_too_many_is_named(folder):
    rewrite(folder, model__layers__1__mlp__extra__weight=("BF16", (2, 2)))
    assert "holds the tensor model.layers.1.mlp.extra.weight, which config.json has no place for" in refusal(folder)


def test_tensors_that_old_tools_write_or_leave_out_do_not_matter(tmp_path):
    sparse_files.write_checkpoint(tmp_path, tiny.DEEPSEEK)
    rewrite(tmp_path, model__layers__0__self_attn__rotary_emb__inv_freq=("F32", (4,)),
            model__layers__3__embed_tokens__weight=None, model__layers__3__shared_head__head__weight=None)
    names = set(Checkpoint.open(tmp_path).tensors)
    assert set(published_shapes(tiny.config(tiny.DEEPSEEK))) - names == {
        "model.layers.3.embed_tokens.weight", "model.layers.3.shared_head.head.weight"}
    assert not any("inv_freq" in name for name in names)


def test_only_the_mtp_layer_s_copies_may_be_left_out(folder):
    rewrite(folder, model__embed_tokens__weight=None)
    assert "the tensor model.embed_tokens.weight that config.json asks for is missing" in refusal(folder)


def test_a_tied_head_may_lie_in_the_file_and_an_untied_one_must(tmp_path):
    tied = tiny.QWEN | {"tie_word_embeddings": True}
    sparse_files.write_checkpoint(tmp_path, tied)
    rewrite(tmp_path, tied, lm_head__weight=("BF16", (64, 32)))
    assert "lm_head.weight" not in Checkpoint.open(tmp_path).tensors  # a copy: never read
    (tmp_path / "config.json").write_text(json.dumps(tiny.QWEN))
    assert "lm_head.weight" in Checkpoint.open(tmp_path).tensors
    rewrite(tmp_path, tied)
    assert "the tensor lm_head.weight that config.json asks for is missing" in refusal(tmp_path)


def test_files_may_leave_the_mtp_layer_out_but_not_half_of_it(folder):
    without = tiny.DEEPSEEK | {"num_nextn_predict_layers": 0}
    rewrite(folder, without)
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.config == tiny.config(without)
    assert checkpoint.tensors.keys() == published_shapes(checkpoint.config).keys()
    rewrite(folder, model__layers__3__eh_proj__weight=None)
    assert "model.layers.3.eh_proj.weight that config.json asks for is missing" in refusal(folder)


def test_fp8_weights_need_their_configuration_and_it_needs_them(tmp_path):
    sparse_files.write_checkpoint(tmp_path, tiny.DEEPSEEK | FP8)
    stored = {name: tensor.dtype for name, tensor in Checkpoint.open(tmp_path).tensors.items()}
    assert stored["model.layers.0.mlp.up_proj.weight"] == "F8_E4M3" and stored["model.layers.3.eh_proj.weight"] == "BF16"
    (tmp_path / "config.json").write_text(json.dumps(tiny.DEEPSEEK))
    assert "is stored as F8_E4M3, where F32 or BF16" in refusal(tmp_path)
    rewrite(tmp_path, **{f"model__layers__0__mlp__up_proj__weight{SCALE}": ("F32", (1, 1))})
    assert "It is a multiplier of FP8 blocks, and config.json has no quantization_config." in refusal(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny.DEEPSEEK | FP8))
    rewrite(tmp_path)
    assert "is stored as BF16, where F8_E4M3 was expected" in refusal(tmp_path)


# How a header lies: from the entries of a sound one to others (or to bytes), and what is said of it.
def _entry(name: str, **changes):
    return lambda entries: entries | {name: entries[name] | changes}


def _shift(entries: dict, name: str, by: int) -> dict:
    start, end = entries[name]["data_offsets"]
    return entries | {name: entries[name] | {"data_offsets": [start + by, end + by]}}


LIES = {
    "a type nobody knows": (_entry(NORM, dtype="F128"), f"says of {NORM} what cannot be"),
    "a type that is no text": (_entry(NORM, dtype=["BF16"]), f"says of {NORM} what cannot be"),
    "a shape of another size": (_entry(NORM, shape=[33]), f"says of {NORM} what cannot be"),
    "a shape with a fraction": (_entry(NORM, shape=[32.0]), f"says of {NORM} what cannot be"),
    "a shape with negative sides": (_entry(NORM, shape=[-4, -8]), f"says of {NORM} what cannot be"),
    "a shape of truth": (_entry(NORM, shape=[32, True]), f"says of {NORM} what cannot be"),
    "a shape that is none": (_entry(NORM, shape=None), f"says of {NORM} what cannot be"),
    "offsets backwards": (_entry(NORM, data_offsets=[64, 0]), f"says of {NORM} what cannot be"),
    "negative offsets": (_entry(NORM, data_offsets=[-64, 0]), f"says of {NORM} what cannot be"),
    "three offsets": (_entry(NORM, data_offsets=[0, 64, 64]), f"says of {NORM} what cannot be"),
    "offsets beyond all files": (_entry(NORM, data_offsets=[2**63, 2**63 + 64]), f"says of {NORM} what cannot be"),
    "offsets without end": (_entry(NORM, data_offsets=[10**4000, 10**4000 + 64]), f"says of {NORM} what cannot be"),
    "no offsets": (lambda entries: entries | {NORM: {"dtype": "BF16", "shape": [32]}}, f"says of {NORM} what cannot be"),
    "no entry": (lambda entries: entries | {NORM: None}, f"says of {NORM} what cannot be"),
    "an overlap": (lambda entries: _shift(entries, NORM, -2), "leaves a hole or an overlap before"),
    "a hole": (lambda entries: {name: entry for name, entry in entries.items() if name != NORM}, "leaves a hole"),
    "data beyond the end": (lambda entries: entries | {"more": {
        "dtype": "U8", "shape": [1], "data_offsets": [end := sparse_files.data_size(entries), end + 1]}},
        "its header describes"),
    "a list": (lambda entries: b"[]", "is not a JSON object"), "a number": (lambda entries: b"12", "is not a JSON object"),
    "no JSON": (lambda entries: b"{oh", "is damaged (Expecting property name"),
    "no text": (lambda entries: b'{"\xff": 1}', "is damaged ('utf-8' codec"),
    "nothing": (lambda entries: b"", "is damaged ("),
    "a depth without end": (lambda entries: b'{"a":' * 100_000, "is damaged ("),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_caught(folder, lie):
    change, expected = LIES[lie]
    sound = sparse_files.header(sparse_files.tensors_of(tiny.DEEPSEEK))
    sparse_files.write_file(folder / "model.safetensors", change(sound), sparse_files.data_size(sound))
    message = refusal(folder)
    assert "model.safetensors: is damaged (" in message and expected in message


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 10**9, "size of file", "one too many", "one too few", 0, 2])
def test_a_header_s_length_that_lies_is_caught(folder, length):
    path = folder / "model.safetensors"
    true, size = int.from_bytes(path.read_bytes()[:8], "little"), path.stat().st_size
    number = {"size of file": size, "one too many": true + 1, "one too few": true - 1}.get(length, length)
    with open(path, "r+b") as file:
        file.write(number.to_bytes(8, "little"))
    assert "model.safetensors: is damaged (" in refusal(folder)


@pytest.mark.parametrize("change", [1, 1000, -1])
def test_a_file_of_another_length_is_caught(folder, change):
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size + change)
    assert "is damaged (its header describes" in refusal(folder)


def test_an_empty_tensor_takes_no_place(tmp_path):
    path = tmp_path / "model.safetensors"
    sparse_files.write_file(path, {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
                                   "empty": {"dtype": "F32", "shape": [0, 5], "data_offsets": [0, 0]},
                                   "scalar": {"dtype": "F32", "shape": [], "data_offsets": [12, 16]}})
    tensors, _ = read_header(path)
    assert (tensors["empty"].size, tensors["scalar"].shape, tensors["scalar"].size) == (0, (), 4)


@pytest.fixture
def shards(tmp_path):
    """A checkpoint in three files, and its index's weight_map to change."""
    sparse_files.write_checkpoint(tmp_path, tiny.DEEPSEEK, 3)
    return tmp_path, json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]


def with_index(shards, weight_map: object) -> str:
    folder, _ = shards
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return refusal(folder)


@pytest.mark.parametrize("outside", ["../model-00001-of-000003.safetensors", "/etc/passwd", "..", ".", "",
                                     "sub/model.safetensors"])
def test_an_index_stays_in_its_folder(shards, outside):
    expected = with_index(shards, shards[1] | {NORM: outside})
    assert f"weight_map names {outside!r}, which is no file of this folder" in expected


def test_index_and_files_must_agree(shards):
    weight_map = shards[1]
    assert weight_map[NORM] == "model-00003-of-000003.safetensors"
    assert f"model-00001-of-000003.safetensors: the index says that {NORM} is in it, but it is not" in with_index(
        shards, weight_map | {NORM: "model-00001-of-000003.safetensors"})
    assert "the index says that lm_heat.weight is in it" in with_index(
        shards, weight_map | {"lm_heat.weight": "model-00002-of-000003.safetensors"})
    assert f"index.json: does not say that {NORM} is in model-00003-of-000003.safetensors, but it is" in with_index(
        shards, {name: file for name, file in weight_map.items() if name != NORM})
    assert "the tensor model.embed_tokens.weight that config.json asks for is missing" in with_index(shards, {})


@pytest.mark.parametrize("weight_map", [None, [], {NORM: 3}, {NORM: None}, "model.safetensors"], ids=str)
def test_an_index_without_a_map_is_named(shards, weight_map):
    assert "model.safetensors.index.json: the key 'weight_map' must map tensors to files" in with_index(shards, weight_map)


def test_a_tensor_in_two_files_is_caught(shards):
    folder, weight_map = shards
    entries = sparse_files.header({NORM: ("BF16", (32,)), "lm_head.weight": ("BF16", (64, 32))})
    sparse_files.write_file(folder / "again.safetensors", entries)
    assert f"does not say that {NORM} is in again.safetensors" in with_index(
        shards, weight_map | {"lm_head.weight": "again.safetensors"})


@pytest.mark.parametrize("file, expected", [
    ("pytorch_model.bin", "a pickle can run any program"), ("consolidated.00.pth", "a pickle can run any program"),
    ("model-q4_0.gguf", "holds a GGUF file"), ("model-00001-of-000002.safetensors", "Fetch the index too"),
    ("weights.npz", "has neither model.safetensors nor")])
def test_weights_of_another_kind_are_named(folder, file, expected):
    (folder / "model.safetensors").rename(folder / file)
    assert expected in refusal(folder)


def test_a_folder_in_a_file_s_place_is_damage(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    assert "model.safetensors: is damaged" in refusal(folder)


EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(folder, its file's bytes, the header's length with its prefix, the tensors)."""
    folder = tmp_path_factory.mktemp("small")
    sparse_files.write_checkpoint(folder, tiny.QWEN | {"num_hidden_layers": 1})
    data = (folder / "model.safetensors").read_bytes()
    return folder, data, 8 + int.from_bytes(data[:8], "little"), Checkpoint.open(folder).tensors


@settings(max_examples=400)
@given(edits=EDITS, cut=st.integers(0, 3))
def test_a_corrupted_header_is_refused_or_says_the_same(small, edits, cut):
    folder, data, header, tensors = small
    corrupted = bytearray(data)
    for position, value in edits:
        corrupted[position % header] = value
    (folder / "model.safetensors").write_bytes(corrupted[:len(corrupted) - cut])
    try:
        opened = Checkpoint.open(folder).tensors
    except RunError as error:
        assert "model.safetensors" in str(error) or "config.json" in str(error)
    else:
        assert opened == tensors


@settings(max_examples=300)
@given(text=st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["a", "dtype", "shape", "data_offsets", "F32", "__metadata__"]), inner, max_size=4)).map(
    lambda value: json.dumps(value).encode()))
def test_any_header_is_read_or_refused(tmp_path, text):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    try:
        tensors, _ = read_header(path)
    except RunError as error:
        assert str(error).startswith(f"{path}: is damaged (")
    else:
        assert sum(stored.size for stored in tensors.values()) == 0


def test_the_files_that_are_read_are_one_file_or_else_those_of_the_index(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    assert weight_files(tmp_path) == [] and not _has_weights(tmp_path) and weights_size(tmp_path) == 0
    index.write_text(json.dumps({"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}))
    assert weight_files(tmp_path) == [tmp_path / "1.safetensors", tmp_path / "2.safetensors"] and not _has_weights(tmp_path)
    for name in ("1.safetensors", "2.safetensors"):
        (tmp_path / name).write_bytes(bytes(10))
    weights_size.cache_clear()
    assert _has_weights(tmp_path) and weights_size(tmp_path) == 20
    (tmp_path / "model.safetensors").write_bytes(bytes(7))  # with an index left over beside it
    weights_size.cache_clear()
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"] and _has_weights(tmp_path) and weights_size(tmp_path) == 7
    (tmp_path / "model.safetensors").unlink()
    index.write_text("[]")
    with pytest.raises(RunError, match="'weight_map' must map"):
        weight_files(tmp_path)
