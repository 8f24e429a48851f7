"""Recipes that start from a published checkpoint: what transformers wrote is trained with tasks of one's own, killed and gone
on with, and what comes out is again what transformers reads, with the same tokenizer, template and settings."""

import json
import shutil

import published
import pytest
import torch
import yaml
from small_recipe import Listening
from transformers import AutoModelForCausalLM, AutoTokenizer

import spoutnik
from spoutnik.errors import UserError
from spoutnik.files import read_json, sha256_file
from spoutnik.generation.model_card import read_model_card
from spoutnik.locate import locate
from spoutnik.model.config import ModelConfig
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.model_files import adapted_config
from spoutnik.recipe.plan import plan_recipe
from spoutnik.recipe.run import run_recipe, stage_status
from spoutnik.recipe.schema import load_recipe
from spoutnik.recipe.starts import published_starts
from spoutnik.text.thought import read_reply
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.loop import HOURLY_BYTES, Checkpoints
from spoutnik.train.optimizer import Optimizer

ROWS = [{"prompt": f"How many sides have {n} triangles?", "answer": str(3 * n), "verifier": "numeric", "split": split}
        for n, split in ((1, "train"), (2, "train"), (3, "train"), (4, "held_out"))]
TRAINING = {"learning_rate": 1e-2, "tokens_per_step": 128, "optimizer": "adamw", "warmup": 1}
STAGES = {
    "taught": {"kind": "sft", "from": "start", "file": "traces.jsonl", "settings": TRAINING | {"epochs": 60}},
    "rl": {"kind": "grpo", "from": "taught", "settings": {"steps": 3, "prompts_per_step": 3, "group_size": 4, "max_tokens": 24,
                                                          "learning_rate": 1e-4, "optimizer": "adamw"}},
    "kept": {"kind": "reject", "from": "rl", "settings": {"prompts": 6, "samples": 2, "max_tokens": 24}},
    "again": {"kind": "sft", "from": "start", "traces": "kept", "settings": TRAINING | {"epochs": 2}},
}
QUESTION = [{"role": "user", "content": "What is 3 + 4?"}]


def write(folder, change=lambda values: None, kind="llama", **checkpoint):
    """A recipe with a checkpoint, a task and traces beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "start").exists():
        published.write(folder / "start", kind, **checkpoint)
    traces = [{"prompt": row["prompt"], "thought": "Three each.", "answer": row["answer"]} for row in ROWS[:3]]
    for name, rows in (("sides.jsonl", ROWS), ("traces.jsonl", traces)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"name": "own", "dtype": "float32", "tasks": ["sides.jsonl"], "validation": {"problems": 4, "looks": 1},
              "evaluation": {"problems_per_family": 2, "samples": 1, "max_tokens": 24},
              "models": {"start": {"checkpoint": "start"}}, "stages": json.loads(json.dumps(STAGES))}
    change(values)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a whole run, `run` in it, and what was said."""
    folder, listening = tmp_path_factory.mktemp("published"), Listening()
    run_recipe(write(folder), folder / "run", listening, accept=["rl"])
    return folder, listening.said


def artifact(folder, stage):
    return next((folder / "run" / "artifacts").glob(f"{stage}-*"))


def same_in_transformers(folder, start):
    """Whether transformers computes what we compute, and reads the tokenizer and the settings of the start."""
    ids = torch.randint(3, 300, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        torch.testing.assert_close(spoutnik.load(folder, dtype="float32")(ids), theirs(ids).logits, atol=2e-5, rtol=1e-4)
    before, after = (AutoTokenizer.from_pretrained(path) for path in (start, folder))
    assert before.chat_template == after.chat_template
    assert before.apply_chat_template(QUESTION, add_generation_prompt=True) == after.apply_chat_template(
        QUESTION, add_generation_prompt=True)
    assert theirs.generation_config.temperature == 0.2  # the start's own, and not R1's


def test_what_the_checkpoint_brought_goes_with_every_model(made):
    folder, said = made
    for stage in ("taught", "rl", "again"):
        for file in (folder / "start").iterdir():
            if file.name != "model.safetensors":
                assert (artifact(folder, stage) / file.name).read_bytes() == file.read_bytes(), (stage, file.name)
    same_in_transformers(artifact(folder, "again"), folder / "start")
    assert "taught: traces.jsonl: 3 traces read, 3 used" in said


def test_the_run_has_its_table_and_evaluates_on_the_tasks_alone(made):
    folder, _ = made
    evaluation = read_json(next((folder / "run" / "evaluations").glob("rl-*")) / "evaluation.json")
    assert list(evaluation["families"]) == ["sides.jsonl"] and "helpfulness" not in evaluation
    assert "sides.jsonl" in (folder / "run" / "report.html").read_text()
    assert read_json(artifact(folder, "rl") / "manifest.json")["metrics"]["accuracy"] > 0.5  # taught, then rewarded
    assert locate(folder / "run") == artifact(folder, "again")


def test_thoughts_in_plain_text_are_read_as_native_ones_and_the_card_says_so(made):
    folder = artifact(made[0], "taught")
    assert "<think> and </think>, as plain text" in read_model_card(folder).description["en"]
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.end_think_id is None
    model, ids = spoutnik.load(folder, dtype="float32"), tokenizer.chat_ids([{"role": "user", "content": ROWS[1]["prompt"]}])
    length = len(ids)
    while ids[-1] not in tokenizer.eos_ids or len(ids) == length:
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert len(ids) < length + 60
    reply = read_reply(ids[length:-1], tokenizer, True)
    assert (reply.thought, reply.answer, reply.well_formed) == ("Three each.", "6", True)


def test_a_second_run_has_nothing_to_do_and_the_kept_recipe_is_the_same(made):
    folder, _ = made
    for path in (folder / "recipe.yaml", folder / "run" / "recipe.yaml"):
        recipe = load_recipe(path)
        assert set(stage_status(recipe, path, folder / "run", list(recipe.stages), set()).values()) == {"already made"}


@pytest.mark.parametrize("stage, what, step", [("rl", "learning by reward", 2), ("kept", "sampling", 6),
                                               ("again", "training", 2)])
def test_killed_and_gone_on_with_it_ends_with_the_same_bytes(made, tmp_path, stage, what, step):
    class Killing(Listening):
        def progress(self, label):
            def progress(done, of, tokens, note):
                if (self.name, label, done) == (stage, what, step):
                    raise KeyboardInterrupt
            return progress

    folder, _ = made
    shutil.copytree(folder, tmp_path / "copy")
    path = write(tmp_path / "copy", lambda values: values.update(checkpoint_seconds=0.001))
    shutil.rmtree(artifact(tmp_path / "copy", stage))
    with pytest.raises(KeyboardInterrupt):
        run_recipe(path, tmp_path / "copy" / "run", Killing(), until=stage, accept=["rl"])
    run_recipe(path, tmp_path / "copy" / "run", Listening(), until=stage, accept=["rl"])
    name = "traces.jsonl" if stage == "kept" else "model.safetensors"
    assert sha256_file(artifact(tmp_path / "copy", stage) / name) == sha256_file(artifact(folder, stage) / name)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_other_kinds_with_and_without_marks_of_thought(tmp_path, kind):
    def short(values):
        values["stages"] = {"taught": values["stages"]["taught"]}
        values["stages"]["taught"]["settings"]["epochs"] = 2
        del values["tasks"]  # nothing to be asked, so nothing is evaluated

    result = run_recipe(write(tmp_path, short, kind), tmp_path / "run", Listening())
    assert result.artifacts[0].evaluation is None
    same_in_transformers(artifact(tmp_path, "taught"), tmp_path / "start")
    marks = "as plain text" if kind == "qwen2" else "tokens of their own"
    assert marks in read_model_card(artifact(tmp_path, "taught")).description["en"]


def test_the_content_of_the_checkpoint_decides_and_its_place_does_not(made, tmp_path):
    def content(folder):
        return published_starts({"start": str(folder)}, "recipe.yaml")["start"].content

    before = content(made[0] / "start")
    moved = shutil.copytree(made[0] / "start", tmp_path / "elsewhere")
    assert content(moved) == before
    for name, old, new in (("chat_template.jinja", b"<|im_end|>", b"<|im_end|> "), ("generation_config.json", b"0.2", b"0.3"),
                           ("model.safetensors", None, None)):
        changed = shutil.copytree(made[0] / "start", tmp_path / name)
        data = bytearray((changed / name).read_bytes())
        if old is None:
            data[-40] ^= 1
        (changed / name).write_bytes(bytes(data) if old is None else data.replace(old, new))
        assert content(changed) != before, name


def changed_stage(name, **values):
    return lambda recipe: recipe["stages"][name].update(values)


def without(stage, **stages):
    def change(recipe):
        recipe["stages"] = {name: value for name, value in recipe["stages"].items() if name == stage} | stages
    return change


@pytest.mark.parametrize("change, message", [
    pytest.param(lambda r: r["models"]["start"].update(checkpoint="strat"), "models.start.checkpoint: .*strat", id="no folder"),
    pytest.param(lambda r: r["models"]["start"].update(checkpoint="./strat"), "relative to the recipe's folder", id="no path"),
    pytest.param(lambda r: r["models"]["start"].update(checkpoint="no-such/model"), "models.start.checkpoint: no-such/model",
                 id="hub without network"),
    pytest.param(lambda r: r["models"]["start"].update(checkpoint=""), "must be the folder of a model", id="empty"),
    pytest.param(lambda r: r["models"].update(start={"chekpoint": "start"}), "Did you mean 'checkpoint'", id="misspelled"),
    pytest.param(lambda r: r["models"]["start"].update(hidden_size=32), "models.start.hidden_size: is the checkpoint's own",
                 id="sizes beside it"),
    pytest.param(lambda r: r["models"].update(taught={"checkpoint": "start"}), "there is a stage 'taught' too",
                 id="two of a name"),
    pytest.param(changed_stage("taught", **{"from": "strat"}), "not an earlier stage.* Did you mean 'start'",
                 id="unknown start"),
    pytest.param(lambda r: r["evaluation"].update(max_tokens=250), "evaluation.max_tokens = 250: .* the 256 positions",
                 id="evaluation too long"),
    pytest.param(lambda r: r["stages"]["rl"]["settings"].update(max_tokens=250), "stages.rl.settings.max_tokens = 250",
                 id="rollouts too long"),
    pytest.param(lambda r: r.pop("tasks"), "tasks: the key is missing, and stage 'rl'", id="nothing to reward"),
    pytest.param(changed_stage("taught", cold_start={"traces": 3}), "families: the key is missing, and stage 'taught'",
                 id="solvers without families"),
    pytest.param(without("taught", base={"kind": "pretrain", "model": "start", "settings": {"steps": 1, "learning_rate": 0.1}}),
                 "'start' is trained already", id="pretrained again"),
])
def test_what_is_wrong_is_a_sentence_before_the_first_stage(made, tmp_path, change, message):
    shutil.copytree(made[0] / "start", tmp_path / "start")
    path = write(tmp_path, change)
    for attempt in (lambda: run_recipe(path, tmp_path / "run", Listening()),
                    lambda: plan_recipe(path, tmp_path / "run", None, None, None)):
        with pytest.raises(UserError, match=f"(?s)recipe.yaml.*{message}"):
            attempt()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spoil, message", [
    pytest.param(lambda start: (start / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "[Gg]it.?LFS|git lfs", id="lfs pointer"),
    pytest.param(lambda start: (start / "model.safetensors").unlink(), "model.safetensors", id="no weights"),
    pytest.param(lambda start: (start / "tokenizer.json").unlink(), "tokenizer.json", id="no tokenizer"),
    pytest.param(lambda start: (start / "chat_template.jinja").unlink(), "has no chat template", id="no template"),
    pytest.param(lambda start: (start / "config.json").write_text('{"model_type": "mamba"}'), "mamba", id="other kind"),
])
def test_a_checkpoint_that_cannot_be_used_is_refused_before_the_first_stage(made, tmp_path, spoil, message):
    shutil.copytree(made[0] / "start", tmp_path / "start")
    spoil(tmp_path / "start")
    path = write(tmp_path)
    load_recipe(path)  # the file itself is right
    for attempt in (lambda: run_recipe(path, tmp_path / "run", Listening()),
                    lambda: plan_recipe(path, tmp_path / "run", None, None, None)):
        with pytest.raises(UserError, match=f"models.start.checkpoint.*({message})"):
            attempt()
    assert not RunFolder(tmp_path / "run").path.exists()


def test_the_plan_predicts_from_the_parameters(made):
    plan = plan_recipe(made[0] / "recipe.yaml", made[0] / "none", None, None, None)
    assert [stage.status for stage in plan.stages] == ["to make"] * 4 and list(plan.models) == ["start"]
    assert all(0 < stage.seconds < 600 and stage.peak_memory_bytes > 0 for stage in plan.stages)


def test_large_checkpoints_of_a_run_are_written_less_often_where_the_recipe_does_not_say_how_often(made):
    model = spoutnik.load(made[0] / "start", dtype="float32")
    optimizer = Optimizer(model, "adamw", 1e-3, 0.0, 1.0)
    size = 3 * 4 * sum(parameter.numel() for parameter in model.parameters())
    folder = made[0] / "checkpoints"
    assert Checkpoints(folder, 20.0, sparing=True).seconds_between(model, optimizer) == 20.0
    assert Checkpoints(folder, 1e-9).seconds_between(model, optimizer) == 1e-9
    seconds = Checkpoints(folder, 1e-9, sparing=True).seconds_between(model, optimizer)
    assert size <= seconds * HOURLY_BYTES / 3600 < 1.3 * size  # a tied head is written twice


@pytest.mark.parametrize("rope", [None, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                         "original_max_position_embeddings": 64}], ids=["plain", "llama3"])
def test_another_context_replaces_the_published_one_and_nothing_else(tmp_path, rope):
    values = read_json(published.write(tmp_path / "start") / "config.json")
    values["rope_parameters"] = {"rope_theta": 5e5, **(rope or {"rope_type": "default"})}
    before = ModelConfig.read(values, "config.json")
    assert adapted_config(values, before, "config.json") == values
    wide = before.model_copy(update={"max_position_embeddings": 512})
    after = adapted_config(values, wide, "config.json")
    assert ModelConfig.read(after, "config.json") == wide
    assert {key for key in values if after.get(key) != values[key]} == {"max_position_embeddings", "rope_parameters"}


def test_a_reward_model_and_more_reading_start_from_it_too(tmp_path):
    def change(values):
        step = {"steps": 2, "tokens_per_step": 256, "learning_rate": 1e-3}
        values |= {"families": ["arithmetic"]}
        values["stages"] = {"more": {"kind": "midtrain", "from": "start", "context": {"max_position_embeddings": 512},
                                     "settings": step},
                            "scores": {"kind": "reward_model", "from": "start", "settings": step}}

    run_recipe(write(tmp_path, change), tmp_path / "run", Listening())
    assert read_json(artifact(tmp_path, "more") / "config.json")["max_position_embeddings"] == 512
    same_in_transformers(artifact(tmp_path, "more"), tmp_path / "start")
    scores = artifact(tmp_path, "scores")
    assert (scores / "score.safetensors").exists() and not (scores / "generation_config.json").exists()
    assert (scores / "tokenizer.json").read_bytes() == (tmp_path / "start" / "tokenizer.json").read_bytes()
