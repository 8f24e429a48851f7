"""The command: complete or absent, never over what is there, with a card that tells what is known, in sentences."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from cli import spoutnik
from transformers import AutoModelForCausalLM, AutoTokenizer

from spoutnik.errors import RunError, UserError
from spoutnik.export import gguf_file, hf, writer
from spoutnik.export.model_card import model_card, provenance
from spoutnik.export.writer import default_target, export
from spoutnik.files import read_json, write_json
from spoutnik.locate import locate
from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.model.weights import load_model


@pytest.fixture(scope="module")
def qwen(checkpoint):
    return checkpoint(tiny.QWEN)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_run_is_exported_to_transformers(run, tmp_path):
    shown = spoutnik("export", str(run), "--format", "hf", "--out", str(tmp_path / "out"), "--json")
    assert shown.returncode == 0, shown.stderr
    written = json.loads(shown.stdout)
    assert (written["architecture"], written["dtype"]) == ("DeepseekV3ForCausalLM", "bf16")
    assert written["size"] == sum((tmp_path / "out" / file).stat().st_size for file in written["files"])
    assert "MTP" in written["notes"][0]
    model, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    ids = tokenizer("What is 3 + 4 ?", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = load_model(locate(run))(ids)
        assert (model.float()(ids).logits - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_stage_is_exported_to_llama_cpp_and_the_reader_is_told(run, tmp_path):
    out = tmp_path / "model.gguf"
    shown = spoutnik("export", str(run), "--stage", "base", "--format", "gguf", "--dtype", "q8_0", "--out", str(out))
    assert shown.returncode == 0, shown.stderr
    assert "deepseek2, q8_0" in shown.stdout and f"llama-cli --jinja -m {out}" in shown.stdout
    assert "Note: The MTP layer is left out" in shown.stdout and "splits numbers" in shown.stdout and out.exists()


@pytest.mark.parametrize("arguments, expected", [
    (("--format", "onnx", "--out", "x"), "--format onnx: is unknown. Choose hf, gguf, merged, lora, lora-gguf."),
    (("--format", "hf", "--dtype", "q8_0", "--out", "x"), "--dtype q8_0: cannot be written as hf. Choose f32, bf16, f16."),
    (("--format", "gguf", "--dtype", "q4_K", "--out", "x.gguf"), "Choose f32, bf16, f16, q8_0, q4_0."),
    (("--format", "gguf", "--out", "x"), "--out x: llama.cpp looks for files that end in .gguf. Write --out x.gguf."),
    (("--format", "hf", "--out", "x", "--shard-size", "big"), "--shard-size big: is no size."),
    (("--format", "hf", "--out", "x", "--stage", "lunch"), "no such model")])
def test_wrong_requests_are_refused_with_a_sentence(run, arguments, expected):
    shown = spoutnik("export", str(run), *arguments)
    assert shown.returncode == 2 and expected in shown.stderr and "Traceback" not in shown.stderr, shown.stderr


def test_help_has_an_example():
    shown = spoutnik("export", "--help")
    assert shown.returncode == 0 and "Example: spoutnik export" in shown.stdout and "--json" in shown.stdout


def test_nothing_to_export(tmp_path):
    write_json(tmp_path / "config.json", tiny.config(tiny.QWEN).published())
    with pytest.raises(RunError, match="neither model.safetensors nor"):
        export(tmp_path, "hf", tmp_path / "out")


@pytest.mark.parametrize("format, name", [("hf", "out"), ("gguf", "out.gguf")])
def test_what_exists_is_replaced_only_with_force(qwen, checkpoint, tmp_path, format, name):
    out = export(qwen, format, tmp_path / name).path
    before = contents(tmp_path if format == "gguf" else out)
    with pytest.raises(UserError, match=f"{name}: exists. .*--force"):
        export(qwen, format, out, "f32")
    assert contents(tmp_path if format == "gguf" else out) == before
    export(qwen, format, out, "f32", shard_size="20KB", force=True)
    assert contents(tmp_path if format == "gguf" else out) != before
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if format == "hf":  # nothing of the old one is left
        assert not (out / "model.safetensors").exists() and (out / "model.safetensors.index.json").exists()


@pytest.mark.parametrize("make, format, name, expected", [
    (lambda path: (path.mkdir(), (path / "thesis.tex").write_text("")), "hf", "out", "holds thesis.tex, which no export"),
    (lambda path: (path.mkdir(), (path / "manifest.json").write_text("")), "hf", "out", "holds manifest.json"),
    (lambda path: path.write_text(""), "hf", "out", "is a file, and hf makes a folder"),
    (lambda path: path.mkdir(), "gguf", "out.gguf", "is a folder, and gguf makes a file")])
def test_force_replaces_nothing_but_exports(qwen, tmp_path, make, format, name, expected):
    make(tmp_path / name)
    with pytest.raises(UserError, match=expected):
        export(qwen, format, tmp_path / name, force=True)
    assert (tmp_path / name).exists()


def test_the_source_itself_is_safe(qwen, tmp_path):
    folder = shutil.copytree(qwen, tmp_path / "a" / "source")
    before = contents(folder)
    for out in (folder, tmp_path / "a", tmp_path / "a" / "x" / ".." / "source"):
        with pytest.raises(UserError, match="holds the model that is exported"):
            export(folder, "hf", out, force=True)
    assert contents(folder) == before


def test_an_empty_folder_is_filled(qwen, tmp_path):
    (tmp_path / "out").mkdir()
    export(qwen, "hf", tmp_path / "out")
    assert load_model(tmp_path / "out").config == load_model(qwen).config


@pytest.mark.parametrize("format, name, where", [("hf", "out", (hf, "_copy")), ("gguf", "out.gguf", (gguf_file, "encoded"))])
def test_a_failure_in_the_middle_leaves_what_was_there(qwen, tmp_path, monkeypatch, format, name, where):
    calls, original = [], getattr(*where)

    def fails_at_the_fourth(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    monkeypatch.setattr(*where, fails_at_the_fourth)
    with pytest.raises(RunError, match="the disk is full while saving"):
        export(qwen, format, tmp_path / name)
    assert not any(tmp_path.iterdir())
    export(qwen, format, tmp_path / name)
    old = contents(tmp_path if format == "gguf" else tmp_path / name)
    calls.clear()
    with pytest.raises(RunError, match="the disk is full while saving"):
        export(qwen, format, tmp_path / name, "f32", force=True)
    assert contents(tmp_path if format == "gguf" else tmp_path / name) == old
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("format, name, where", [("hf", "out", "hf._copy"), ("gguf", "out.gguf", "gguf_file.encoded")])
def test_a_killed_export_leaves_nothing_under_its_name_and_the_next_one_cleans_up(qwen, tmp_path, format, name, where):
    killed = (f"import os\nfrom spoutnik.export import gguf_file, hf, writer\n"
              f"calls, original = [], {where}\n"
              f"def stop(*a):\n    calls.append(a)\n    if len(calls) == 4: os._exit(9)\n    return original(*a)\n"
              f"{where} = stop\nwriter.export({str(qwen)!r}, {format!r}, {str(tmp_path / name)!r})")
    assert subprocess.run([sys.executable, "-c", killed]).returncode == 9
    assert not (tmp_path / name).exists() and len(list(tmp_path.iterdir())) == 1
    export(qwen, format, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_killed_export_moved_aside_comes_back(qwen, tmp_path):
    prints_its_id = [sys.executable, "-c", "import os; print(os.getpid(), end='')"]
    gone = subprocess.run(prints_its_id, capture_output=True, text=True).stdout
    out = export(qwen, "hf", tmp_path / "out").path
    before = contents(out)
    out.rename(tmp_path / f".out.replaced-{gone}")
    (tmp_path / f".out.writing-{os.getppid()}").mkdir()  # another export, still running
    with pytest.raises(UserError, match="exists"):
        export(qwen, "hf", out)
    assert contents(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".out.writing-{os.getppid()}", "out"]


def test_a_full_disk_is_said_before_writing(qwen, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: usage(10, 9, 1))
    for format, name in (("hf", "out"), ("gguf", "out.gguf")):
        with pytest.raises(RunError, match="needs .* GB and the disk has 0.0 GB left"):
            export(qwen, format, tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_the_card_tells_what_the_run_knows(run, tmp_path):
    folder = locate(run, "cold_start")
    export(folder, "hf", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {"license": "mit", "library_name": "transformers", "pipeline_tag": "text-generation",
                     "language": ["en", "fr"], "tags": ["reasoning"]}
    manifest, counts = read_json(folder / "manifest.json"), account(ModelConfig.load(folder))
    for fact in ("# tiny-cold_start", "DeepseekV3ForCausalLM", f"{counts.total_parameters:,} parameters",
                 f"{counts.active_parameters:,} active", manifest["key"], manifest["code_version"], "recipe `tiny`",
                 "- `base` (pretrain): procedurally generated problems (arithmetic, letters)",
                 "- `midtrained` (midtrain): longer texts", "traces written by solvers",
                 "temperature 0.6, top-p 0.95", "llama.cpp"):
        assert fact in text, fact
    evaluation = read_json(next((run / "evaluations").glob("cold_start-*/evaluation.json")))
    accuracy = evaluation["accuracy"]
    assert f"| all | {accuracy['mean']:.1%} | {accuracy['low']:.1%} to {accuracy['high']:.1%} | 4 x 1 |" in text
    assert text.index("`base` (pretrain)") < text.index("`cold_start` (sft)") and "## Limits" in text


def test_licences(run, qwen, tmp_path):
    stage = locate(run, "cold_start")
    assert provenance(stage).licence == "mit" and provenance(stage, "cc0-1.0").licence == "cc0-1.0"
    copy = shutil.copytree(run, tmp_path / "run")
    manifest = read_json(copy / stage.relative_to(run) / "manifest.json")
    manifest["contents"] = manifest.get("contents", {}) | {"file": "0" * 64}  # texts of others: not ours to license
    manifest["data"].append(manifest["data"][0] | {"source": "bought.jsonl"})
    write_json(copy / stage.relative_to(run) / "manifest.json", manifest)
    known = provenance(copy / stage.relative_to(run))
    card = model_card(ModelConfig.load(stage), known)
    assert known.licence == "other" and "traces of the file bought.jsonl" in card
    (copy / read_json(copy / "run.json")["stages"]["base"] / "manifest.json").unlink()
    assert provenance(copy / stage.relative_to(run)).licence == "other"  # where it began is not known
    published = shutil.copytree(qwen, tmp_path / "published")
    assert provenance(published) == provenance(published.resolve()) and provenance(published).licence == "other"
    (published / "LICENSE").write_text("Apache License\nVersion 2.0")
    assert provenance(published).licence == "apache-2.0"
    (published / "README.md").write_text("---\nlicense: llama3.1\nbase_model: some/one\n---\n# A model\n")
    assert (provenance(published).licence, provenance(published).base_model) == ("llama3.1", "some/one")
    out = export(published, "hf", tmp_path / "out").path
    text = (out / "README.md").read_text()
    assert yaml.safe_load(text.split("---\n")[1]) == {"license": "llama3.1", "library_name": "transformers",
                                                      "pipeline_tag": "text-generation", "base_model": "some/one"}
    assert (out / "LICENSE").read_text() == "Apache License\nVersion 2.0" and "did not make" in text
    (published / "README.md").write_text("---\n{broken: [\n---\n")
    assert provenance(published).licence == "apache-2.0"


def test_an_export_that_nobody_placed_is_named_after_run_and_stage(tmp_path):
    run, stage = tmp_path / "nano", tmp_path / "nano" / "artifacts" / "distilled-0123"
    stage.mkdir(parents=True)
    (stage / "manifest.json").write_text('{"stage": "distilled"}')
    assert default_target(run, stage, "gguf") == Path("exports/nano-distilled.gguf")
    assert default_target(stage, stage, "hf") == Path("exports/distilled-0123")
