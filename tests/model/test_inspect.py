"""`inspect`: the truth about a model from its headers, without torch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sparse_files
import tiny

from spoutnik.model import presets
from spoutnik.model.describe import describe
from spoutnik.model.inspect import chat_format, inspect_folder, inspect_preset
from spoutnik.model.presets import preset, preset_names

FOLDER = Path(presets.__file__).parent
R1_TEMPLATE = "{{ bos }}{{ '<｜User｜>' + x }}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
V3_TEMPLATE = "{{ bos }}{{ '<｜User｜>' + x }}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
QWEN3_TEMPLATE = ("{{- '<|im_start|>assistant\\n<think>\\n' + thought + '\\n</think>\\n\\n' }}"
                  "{%- if not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}")
QWQ_TEMPLATE = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif %}"
LLAMA_TEMPLATE = "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
# Runs a command and says on its last line whether torch was imported.
PROBE = ("import json, sys; from spoutnik.commands.main import app; app(sys.argv[1:], standalone_mode=False); "
         "print(json.dumps('torch' in sys.modules))")


def without_torch(*arguments: str, **environment: str) -> str:
    """What the command prints."""
    shown = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True,
                           env=os.environ | environment)
    assert shown.returncode == 0, shown.stderr
    text, _, torch = shown.stdout.rstrip("\n").rpartition("\n")
    assert torch == "false"
    return text


def refused(*arguments: str) -> tuple[int, str]:
    shown = subprocess.run([sys.executable, "-m", "spoutnik", "inspect", *arguments], capture_output=True, text=True)
    assert shown.stdout == "" and "Traceback" not in shown.stderr
    return shown.returncode, shown.stderr


def published(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())["config"]


@pytest.fixture(scope="module")
def r1(tmp_path_factory):
    """DeepSeek-R1's 163 files without their 688 GB."""
    folder = tmp_path_factory.mktemp("DeepSeek-R1")
    sparse_files.write_checkpoint(folder, published("deepseek-r1"), 163)
    (folder / "README.md").write_text("---\nlicense: mit\nlibrary_name: transformers\n---\n# DeepSeek-R1\nlicense: none\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": R1_TEMPLATE}))
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 0.6, "top_p": 0.95}))
    return folder


@pytest.fixture
def saved(tmp_path):
    sparse_files.write_checkpoint(tmp_path, tiny.DEEPSEEK)
    return tmp_path


R1_FACTS = {
    "architecture": "DeepseekV3ForCausalLM", "model_type": "deepseek_v3", "parameters_total": 671_026_419_200,
    "parameters_active": 37_552_297_472, "mtp_parameters": 11_610_068_224, "cache_bytes_per_token": 70_272,
    "expanded_cache_bytes_per_token": 4_997_120, "flops_per_token": 73_251_236_864, "tensors": 91_991,
    "bytes_by_type": {"F8_E4M3": 680_571_043_840, "BF16": 2 * 3_918_786_560, "F32": 4 * 41_555_600},
    "dense_layers": 3, "moe_layers": 58, "chat_format": "DeepSeek", "opens_thought": True,
    "generation": {"temperature": 0.6, "top_p": 0.95}}


def test_a_checkpoint_of_163_files_is_known_from_its_headers(r1):
    facts = json.loads(without_torch("inspect", str(r1), "--json"))
    assert facts | R1_FACTS == facts
    assert (facts["kind"], facts["files"], facts["mtp_in_files"], facts["licence"]) == ("checkpoint", 163, True, "mit")


def test_a_preset_is_known_without_any_file():
    facts = json.loads(without_torch("inspect", "deepseek-r1", "--json"))
    assert facts | R1_FACTS == facts
    assert (facts["kind"], facts["files"], facts["mtp_in_files"]) == ("preset", None, None) and "MIT" in facts["licence"]


def test_it_is_printed_as_aligned_text(r1):
    text = without_torch("inspect", str(r1))
    lines = {line[:12].strip(): line[14:] for line in text.splitlines()}
    assert all(line[12:14] == "  " for line in text.splitlines())
    assert lines["checkpoint"] == str(r1)
    assert lines["parameters"] == "671 B (671,026,419,200), 37.55 B at work for a token"
    assert lines["prediction"] == "11.61 B more predict two tokens ahead (MTP), in the files"
    assert lines["experts"] == "256 routed in 8 groups (4 eligible), 8 for a token; 1 shared; width 2,048"
    assert lines["context"] == "163,840 tokens (yarn, factor 40 from 4,096)"
    assert lines["cache"] == ("70,272 bytes a token (71.1 times less than keys and values, 4,997,120), 11.51 GB at full "
                             "context")
    assert lines["files"] == "91,991 tensors in 163 files, 688.6 GB: F8_E4M3 680.6 GB, BF16 7.838 GB, F32 166.2 MB"
    assert lines["memory"] == "1.342 TB in bf16, 671 GB in int8, 335.5 GB in int4 (weights alone)"
    assert lines["chat"] == "DeepSeek (<｜User｜>), opens a thought" and lines["licence"] == "mit"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_described_without_empty_words(name):
    for label, text in describe(inspect_preset(preset(name))):
        assert len(label) <= 12 and text and "None" not in text and "0 shared" not in text


def test_attention_of_every_kind_is_described():
    lines = {name: dict(describe(inspect_preset(preset(name))))["attention"] for name in preset_names()}
    assert lines["deepseek-r1-distill-qwen-7b"] == (
        "grouped queries (GQA): 28 heads share 4 keys and values of width 128, biases on q, k and v")
    assert lines["deepseek-r1-distill-llama-8b"].endswith("32 heads share 8 keys and values of width 128")
    assert lines["deepseek-v2"].endswith("128 heads, 512 latent + 64 rotary numbers cached, queries through 1,536")
    assert lines["deepseek-v2-lite"].endswith("queries straight from the hidden state")


def test_a_folder_without_weights_says_so(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(published("deepseek-v2-lite")))
    # What fetching the configuration alone leaves: an index of files that are not there.
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"lm_head.weight": "model-1.safetensors"}}')
    inspection = inspect_folder(tmp_path)
    assert (inspection.kind, inspection.tensors, inspection.files, inspection.stored) == ("configuration", 5291, None, {})
    assert inspection.counts.total_parameters == 15_706_484_224
    assert dict(describe(inspection))["files"] == "no weights in this folder; 5,291 tensors would be expected"


def test_files_without_the_mtp_module_are_told_from_a_model_without_one(tmp_path):
    sparse_files.write_checkpoint(tmp_path, tiny.DEEPSEEK | {"num_nextn_predict_layers": 0})
    (tmp_path / "config.json").write_text(json.dumps(tiny.DEEPSEEK))
    inspection = inspect_folder(tmp_path)
    assert inspection.mtp_in_files is False and inspection.counts.mtp_parameters > 0
    assert dict(describe(inspection))["prediction"].endswith("not in the files")
    (tmp_path / "config.json").write_text(json.dumps(tiny.DEEPSEEK | {"num_nextn_predict_layers": 0}))
    inspection = inspect_folder(tmp_path)
    assert inspection.mtp_in_files is None and inspection.counts.mtp_parameters == 0
    assert "prediction" not in dict(describe(inspection))


def test_a_run_is_its_last_model(saved, tmp_path):
    run = tmp_path / "run"
    for stage, kind in (("base", "pretrain"), ("taught", "sft"), ("student", "distill")):
        folder = run / "artifacts" / stage
        sparse_files.write_checkpoint(folder, tiny.DEEPSEEK if stage != "student" else tiny.QWEN)
        (folder / "manifest.json").write_text(json.dumps({"kind": kind}))
        (folder / "generation_config.json").write_text("{}")
    stages = ["base", "taught", "student"]
    (run / "run.json").write_text(json.dumps({"order": stages, "stages": {name: f"artifacts/{name}" for name in stages}}))
    facts = json.loads(without_torch("inspect", str(run), "--json"))
    assert facts["source"] == str(run / "artifacts" / "taught") and facts["model_type"] == "deepseek_v3"


def test_a_name_on_the_hub_is_looked_up_in_the_cache(saved, tmp_path):
    cached = tmp_path / "cache" / "models--somebody--tiny"
    shutil.copytree(saved, cached / "snapshots" / "0123abcd", ignore=shutil.ignore_patterns("cache"))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123abcd")
    environment = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    facts = json.loads(without_torch("inspect", "somebody/tiny", "--json", **environment))
    assert facts["kind"] == "checkpoint" and facts["source"].endswith("snapshots/0123abcd")


@pytest.mark.parametrize("files, licence", [
    ({}, None),
    ({"README.md": "---\nlicense: apache-2.0\n---\n"}, "apache-2.0"),
    ({"README.md": "---\nbase_model: x\nlicense: other\nlicense_name: deepseek\n---\n"}, "deepseek"),
    ({"README.md": "---\nlicense: 'mit'\n---\n", "LICENSE": "Apache License\n"}, "mit"),
    ({"README.md": "# A model\nlicense: mit\n", "LICENSE": "\n  MIT License\n\nCopyright\n"}, "MIT License"),
    ({"README.md": "---\nlanguage: en\n---\nlicense: mit\n"}, None),
    ({"LICENSE": "\n"}, None),
])
def test_the_licence_is_the_one_that_the_files_state(saved, files, licence):
    for name, text in files.items():
        (saved / name).write_text(text)
    inspection = inspect_folder(saved)
    assert inspection.licence == licence
    assert dict(describe(inspection))["licence"] == (licence or "not stated")


@pytest.mark.parametrize("template, name, opens", [
    (R1_TEMPLATE, "DeepSeek", True), (R1_TEMPLATE.replace("\\n", "\n"), "DeepSeek", True),
    (R1_TEMPLATE.replace("\\n", ""), "DeepSeek", True), (V3_TEMPLATE, "DeepSeek", False),
    (QWEN3_TEMPLATE, "ChatML", False), (QWQ_TEMPLATE, "ChatML", True), (LLAMA_TEMPLATE, "Llama 3", False),
    ("{{ 'User: ' + x }}", "other", False), (None, None, False)])
def test_the_chat_format_is_read_from_the_template(saved, template, name, opens):
    for write in (
            lambda: (saved / "tokenizer_config.json").write_text(json.dumps({"chat_template": template})),
            lambda: (saved / "tokenizer_config.json").write_text(json.dumps({"chat_template": [
                {"name": "tool_use", "template": "{{ '<|im_start|>' }}"}, {"name": "default", "template": template}]})),
            lambda: (saved / "chat_template.jinja").write_text(template or "")):
        write()
        inspection = inspect_folder(saved)
        assert (inspection.chat_format, inspection.opens_thought) == (name, opens)
    assert ("opens a thought" in dict(describe(inspection))["chat"]) == opens


def test_our_own_template_is_the_preset_s():
    template = (FOLDER.parents[1] / "text" / "chat_template.jinja").read_text()
    assert chat_format(template) == preset("nano").chat_format == "DeepSeek"


def test_a_name_that_is_nothing_gets_the_closest_preset():
    status, message = refused("deepseek-v1")
    assert status == 2 and "Did you mean deepseek-" in message


def test_damage_is_a_sentence(saved):
    os.truncate(saved / "model.safetensors", 100)
    status, message = refused(str(saved))
    assert status == 1 and f"{saved}/model.safetensors: is damaged" in message


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json"])
def test_a_file_that_is_no_object_is_named(saved, name):
    (saved / name).write_text("[]")
    status, message = refused(str(saved))
    assert status == 1 and f"{saved}/{name}: must hold a JSON object" in message
