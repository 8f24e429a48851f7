"""The equality check of exports: a reader that computes the same passes with its numbers, another is refused and nothing is
written. With the peers' environment (`make peers`, or SPOUTNIK_PEERS=its python) PEFT and llama.cpp themselves are asked."""

import os
import sys
from pathlib import Path

import pytest
import tiny

from spoutnik.errors import RunError, UserError
from spoutnik.export.readers import equality
from spoutnik.export.writer import export
from spoutnik.model.lora import adapters_of, attach

HERE = Path(sys.executable)
PEERS = Path(os.environ.get("SPOUTNIK_PEERS", Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"))


@pytest.fixture
def reader(monkeypatch, adapter_of):
    """A function: what the reader multiplies the adapter's scale by, its rounding of logits -> base and adapter, for a PEFT
    that reads them so."""
    def make(factor=1.0, rounding=0.0, size=0.05):
        folder, path, model = adapter_of(tiny.QWEN, size)

        def read_by(name, version, python, base, adapter, prompts):
            parts = adapters_of(model)
            plain = tiny_base(model, parts, prompts)
            for part in parts.values():
                part.scale *= factor
            adapted = equality.logits_of(model, prompts)
            return {"base": plain * (1 + rounding), "adapted": adapted * (1 + rounding)}

        monkeypatch.setattr(equality, "read_by", read_by)
        monkeypatch.setattr(equality, "present_readers", lambda python: {"peft": "0.99"})
        return folder, path
    return make


def tiny_base(model, parts, prompts):
    for name in parts:
        model.get_submodule(name).adapter = None
    logits = equality.logits_of(model, prompts)
    attach(model, parts)
    return logits


def test_transformers_reads_a_merged_folder_as_we_do(adapter_of, tmp_path):
    folder, path, _ = adapter_of()
    [agreement] = export(folder, "merged", tmp_path / "out", "f32", adapter=path, readers=HERE).readers
    assert agreement.reader == "transformers" and agreement.kl < 1e-9 < 1e-3 < agreement.effect


def test_a_reader_that_computes_the_same_is_named_with_its_distance(reader, tmp_path):
    folder, path = reader()
    written = export(folder, "lora", tmp_path / "out", adapter=path, readers=HERE)
    assert written.readers[0].kl < 1e-9 and written.notes[-1].startswith("PEFT 0.99 computes the same: KL ")


@pytest.mark.parametrize("factor", [0.25, 0.0, 2.0], ids=["a lost root", "no adapter", "another alpha"])
def test_a_reader_with_another_scale_is_an_error_and_nothing_is_written(factor, reader, tmp_path):
    folder, path = reader(factor)
    with pytest.raises(RunError, match="PEFT 0.99 reads the export and computes something else: KL .* --no-check"):
        export(folder, "lora", tmp_path / "out", adapter=path, readers=HERE)
    assert not list(tmp_path.iterdir())


def test_where_the_reader_rounds_more_than_the_adapter_changes_nothing_is_claimed(reader, tmp_path):
    folder, path = reader(0.0, rounding=0.05, size=1e-4)
    assert "equality cannot be told" in export(folder, "lora", tmp_path / "out", adapter=path, readers=HERE).notes[-1]


def test_absent_readers_are_named(monkeypatch, adapter_of, tmp_path):
    folder, path, _ = adapter_of()
    monkeypatch.setattr(equality, "present_readers", lambda python: {})
    for format, name in (("lora", "PEFT"), ("lora-gguf", "llama.cpp"), ("merged", "transformers")):
        written = export(folder, format, tmp_path / f"{format}.gguf", adapter=path, readers=HERE)
        assert f"Not checked: {name} is not in this environment" in written.notes[-1] and not written.readers


def test_interpreters_that_are_none_and_readers_that_fail_are_named(tmp_path):
    with pytest.raises(UserError, match="--readers .*nowhere: does not run"):
        equality.present_readers(tmp_path / "nowhere")
    with pytest.raises(UserError, match="--readers /bin/false: does not answer"):
        equality.present_readers(Path("/bin/false"))
    if "llama.cpp" not in equality.present_readers(HERE):
        with pytest.raises(RunError, match="llama.cpp 0 does not read the export: .*llama_cpp"):
            equality.read_by("llama.cpp", "0", HERE, tmp_path, None, [[1, 2]])


ATTENTION = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")


@pytest.mark.parametrize("format, reader, base, options", [
    ("lora", "peft", tiny.LLAMA, {"use_rslora": True}), ("lora", "peft", tiny.QWEN3, {}),
    ("lora", "peft", tiny.DEEPSEEK | {"num_nextn_predict_layers": 0}, {"target_modules": ATTENTION, "experts": True}),
    ("lora-gguf", "llama.cpp", tiny.LLAMA, {"use_rslora": True}), ("lora-gguf", "llama.cpp", tiny.QWEN3, {})],
    ids=["PEFT, llama, rsLoRA", "PEFT, qwen3", "PEFT, experts", "llama.cpp, llama, rsLoRA", "llama.cpp, qwen3"])
def test_the_readers_themselves(format, reader, base, options, adapter_of, tmp_path):
    if not PEERS.exists() or reader not in equality.present_readers(PEERS):
        pytest.skip(f"{PEERS}: no {reader} there (make peers)")
    wide = base | {"hidden_size": 64, "intermediate_size": 96} | ({"head_dim": 32} if "head_dim" in base else {})
    folder, path, _ = adapter_of(wide, **options)
    [agreement] = export(folder, format, tmp_path / "out.gguf", adapter=path, readers=PEERS).readers
    assert agreement.kl < 1e-6 < 1e-3 < agreement.effect
