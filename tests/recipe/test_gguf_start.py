"""A recipe that starts from a GGUF file: tokenizer, template and special tokens travel, and what comes out is a folder that
transformers reads."""

import json

import published
import pytest
import torch
import yaml
from small_recipe import Listening
from transformers import AutoModelForCausalLM, AutoTokenizer

import spoutnik
from spoutnik.errors import UserError
from spoutnik.export.writer import export
from spoutnik.files import read_json
from spoutnik.gguf_folder import gguf_folder
from spoutnik.recipe.run import run_recipe, stage_status
from spoutnik.recipe.schema import load_recipe
from spoutnik.text.tokenizer import Tokenizer

TEXTS = ["What is 12 + 345 ?", "Où   est-il ?\n\n", "日本 x²", "<|im_end|> <think>"]
QUESTION = [{"role": "user", "content": "What is 3 + 4?"}]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(the GGUF file, the folder of the stage that went on from it)."""
    folder = tmp_path_factory.mktemp("gguf-start")
    file = export(published.write(folder / "start"), "gguf", folder / "start.F16.gguf", "f16").path
    (folder / "traces.jsonl").write_text(json.dumps({"prompt": "What is 3 + 4?", "thought": "3 and 4.", "answer": "7"}) + "\n")
    values = {"name": "gguf", "dtype": "float32", "models": {"start": {"checkpoint": file.name}}, "stages": {
        "taught": {"kind": "sft", "from": "start", "file": "traces.jsonl", "settings": {
            "epochs": 3, "learning_rate": 1e-3, "tokens_per_step": 64, "optimizer": "adamw", "warmup": 1}}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    run_recipe(folder / "recipe.yaml", folder / "run", Listening())
    return file, next((folder / "run" / "artifacts").glob("taught-*"))


def test_the_artifact_is_a_folder_with_the_file_s_tokenizer(ran):
    file, folder = ran
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (gguf_folder(file) / name).read_bytes(), name
    assert not any(path.is_symlink() or path.suffix == ".gguf" for path in folder.iterdir())
    assert read_json(folder / "manifest.json")["inputs"]["start"]["checkpoint"] == file.name
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert ours.encode(text) == Tokenizer.load(gguf_folder(file)).encode(text)
    assert ours.chat_ids(QUESTION) == theirs.apply_chat_template(QUESTION, add_generation_prompt=True)["input_ids"]


def test_transformers_computes_the_trained_model(ran):
    file, folder = ran
    ids = torch.tensor([Tokenizer.load(folder).chat_ids(QUESTION)])
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        trained, start = spoutnik.load(folder, dtype="float32")(ids), spoutnik.load(file, dtype="float32")(ids)
        torch.testing.assert_close(trained, theirs(ids).logits, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(trained, start, atol=1e-3)


def test_the_file_s_content_decides_and_not_its_place(ran, tmp_path):
    file, folder = ran
    recipe = folder.parents[2] / "recipe.yaml"
    (tmp_path / "traces.jsonl").write_bytes((recipe.parent / "traces.jsonl").read_bytes())
    moved = (tmp_path / "elsewhere.gguf")
    moved.write_bytes(file.read_bytes())
    (tmp_path / "recipe.yaml").write_text(recipe.read_text().replace(file.name, moved.name))
    path = tmp_path / "recipe.yaml"
    assert stage_status(load_recipe(path), path, folder.parents[1], ["taught"], set()) == {"taught": "already made"}


def test_an_exported_folder_has_the_file_s_tokenizer(ran, tmp_path):
    """Whoever reads the folder splits texts as whoever reads the file."""
    file, _ = ran
    folder = export(gguf_folder(file), "hf", tmp_path / "hf").path
    ours, theirs = Tokenizer.load(gguf_folder(file)), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS[:3]:
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text) == Tokenizer.load(folder).encode(text)


@pytest.mark.parametrize("damage, words", [(lambda content: content[:len(content) // 2], "is cut off"),
                                           (lambda content: b"PK" + content[2:], "is no GGUF file")], ids=["cut", "other"])
def test_a_damaged_file_is_told_before_the_first_stage(ran, tmp_path, damage, words):
    file, folder = ran
    (tmp_path / "start.F16.gguf").write_bytes(damage(file.read_bytes()))
    for name in ("recipe.yaml", "traces.jsonl"):
        (tmp_path / name).write_bytes((folder.parents[2] / name).read_bytes())
    load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match=f"models.start.checkpoint: .*{words}") as raised:
        run_recipe(tmp_path / "recipe.yaml", tmp_path / "run", Listening())
    assert "relative to the recipe's folder" not in str(raised.value)  # the path is right, and the file is damaged
    assert not (tmp_path / "run" / "artifacts").exists()
