"""The plan: the work of every stage, the optimizer's share of it, and what evaluations still cost."""

import json
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from small_recipe import TRACES, prepared

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import UserError
from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.recipe import estimate, plan, rehearsal
from spoutnik.recipe.adapters import adapter_parameters
from spoutnik.recipe.estimate import Speed, estimated_speed, held_bytes
from spoutnik.recipe.rehearsal import TrainingStep
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.recipe.work import stage_work
from spoutnik.train.settings import AdapterSettings

TINY = Path(__file__).with_name("tiny.yaml")


def planned(monkeypatch, tmp_path, speed: Speed, until: str | None = None) -> dict[str, plan.PlannedStage]:
    monkeypatch.setattr(plan, "rehearse", lambda config, dtype, step: speed)
    return {stage.name: stage for stage in plan.plan_recipe(TINY, tmp_path, until, None, None).stages}


def test_each_step_of_an_optimizer_counts(monkeypatch, tmp_path):
    speed = Speed(float("inf"), float("inf"), {"adamw": 1.0, "muon": 10.0}, 0)
    values = yaml.safe_load(TINY.read_text())
    values["stages"]["student_base"]["settings"]["optimizer"] = "adamw"
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    monkeypatch.setattr(plan, "rehearse", lambda config, dtype, step: speed)
    seconds = {stage.name: stage.seconds for stage in plan.plan_recipe(path, tmp_path / "run", None, None, None).stages}
    assert seconds["base"] == 60 and seconds["midtrained"] == 20 and seconds["student_base"] == 2
    assert seconds["reasoning_rl"] == 50 and seconds["rejection"] == 0
    assert seconds["cold_start"] == 10 * -(-2 * (12 * 76 + 40 * 53) // 512)


def test_the_rehearsal_is_of_the_step_that_a_stage_makes(monkeypatch, tmp_path):
    rehearsed = {}

    def rehearse(config, dtype, step):
        train = 100.0 if step is None else rehearsed.setdefault(step, 10.0 + len(rehearsed))
        return Speed(train, 10.0, {"adamw": 0.0, "muon": 0.0}, 0)

    monkeypatch.setattr(plan, "rehearse", rehearse)
    values = yaml.safe_load(TINY.read_text())
    values["stages"]["cold_start"]["settings"] |= {"tokens_per_step": 1024, "micro_batch_tokens": 300}
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    planned = {stage.name: stage for stage in plan.plan_recipe(path, tmp_path / "run", None, None, None).stages}
    cold_start = planned["cold_start"]
    few = next(step for step in rehearsed if step.micro_batch_tokens == 300)
    assert 800 < few.tokens <= 1024
    assert cold_start.core_seconds - cold_start.evaluation_core_seconds == pytest.approx(
        stage_work(load_recipe(path), "cold_start").trained / rehearsed[few])
    assert {step.tokens for step in rehearsed if step.mixed} == {512}  # mid-training's
    assert any(not step.with_mtp for step in rehearsed) and any(step.with_mtp for step in rehearsed)


def test_small_steps_are_rehearsed_as_small_steps(monkeypatch):
    """Of the stage's size and micro-batches; several of them, as one is too short to time. The first is for memory."""
    asked = []
    monkeypatch.setattr(rehearsal, "cores", lambda: 2)
    monkeypatch.setattr(rehearsal, "language_model_gradient", lambda model, documents, parameters, settings: asked.append(
        (sum(len(document.ids) for document in documents), settings.micro_batch_tokens, settings.mtp_loss_weight)))
    config = ModelConfig.parse(tiny.DEEPSEEK | {"vocab_size": 300, "max_position_embeddings": 2048}, "test")
    assert rehearsal.rehearse(config, torch.float32, TrainingStep(770, 512, with_mtp=False)).train > 0
    assert asked[1:] == [(96 * 8, 512, 0.0)] * (2 * 16384 // 768)
    del asked[:]
    rehearsal.rehearse(config, torch.float32, TrainingStep(50_000, 512, with_mtp=False))  # many micro-batches: some are enough
    assert asked == [(96 * 11, 512, 0.0)] * (2 * 16384 // 1024)


def test_trained_and_generated_tokens_are_timed_apart(monkeypatch, tmp_path):
    row = planned(monkeypatch, tmp_path, Speed(100.0, 10.0, {"adamw": 0.0, "muon": 0.0}, 0))["base"]
    assert row.tokens_trained == 6 * 512
    assert row.tokens_generated == round(2 * 2 * 2 * 24 * 0.25)  # two families, in two layouts
    assert row.seconds == pytest.approx(row.tokens_trained / 100 + 1.35 * row.tokens_generated / 10)
    assert row.evaluation_core_seconds == pytest.approx(1.35 * row.tokens_generated / 10)


def test_what_is_made_and_evaluated_costs_nothing_more(monkeypatch, tmp_path):
    run_recipe(TINY, tmp_path, SilentDisplay(), until="base")
    speed = Speed(100.0, 10.0, {"adamw": 1.0, "muon": 1.0}, 0)
    rows = planned(monkeypatch, tmp_path, speed)
    assert rows["base"].status == "already made" and rows["base"].seconds == 0 < rows["student_base"].seconds
    (evaluation,) = (tmp_path / "evaluations").iterdir()
    evaluation.rename(evaluation.with_name(evaluation.name + ".writing"))  # as a run leaves it that is killed there
    rows = planned(monkeypatch, tmp_path, speed)
    base = rows["base"]
    assert base.tokens_trained == 0 < base.tokens_generated and base.seconds == pytest.approx(1.35 * base.tokens_generated / 10)


def test_another_protocol_costs_an_evaluation(monkeypatch, tmp_path):
    run_recipe(TINY, tmp_path / "run", SilentDisplay(), until="base")
    values = yaml.safe_load(TINY.read_text())
    values["evaluation"]["samples"] += 1
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    monkeypatch.setattr(plan, "rehearse", lambda config, dtype, step: Speed(100.0, 10.0, {"adamw": 1.0, "muon": 1.0}, 0))
    row = plan.plan_recipe(path, tmp_path / "run", "base", None, None).stages[0]
    assert row.status == "already made" and row.tokens_trained == 0 < row.tokens_generated


def test_every_stage_of_the_nano_recipe_has_work():
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "nano.yaml")
    for name in recipe.stages:
        work = stage_work(recipe, name)
        assert work.trained + work.generated > 0 and bool(work.steps) == bool(work.trained)


def test_a_file_of_traces_has_work(tmp_path):
    path = prepared(tmp_path)
    recipe = load_recipe(path)
    characters = sum(len(row["prompt"]) + len(row["answer"]) for row in TRACES)
    few = stage_work(recipe, "mine")
    assert few.trained == 4 * round(characters / 3 + 8 * len(TRACES)) and few.steps > 0
    assert few.measured == 2 * few.trained / 4  # all of so few are compared before and after; none is held out
    long = {"prompt": "a", "thought": "b" * 1000, "answer": "c"}  # will not fit
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*TRACES, long]))
    assert stage_work(recipe, "mine") == few


def test_the_plan_finds_what_running_would(tmp_path):
    path = prepared(tmp_path, lambda v: v["stages"]["mine"].update(file="none.jsonl"))
    with pytest.raises(UserError, match="stages.mine.file = .*no such file"):
        plan.plan_recipe(path, tmp_path / "run", None, None, None)
    with pytest.raises(UserError, match="--accept nosuch: .* has no such stage"):
        plan.plan_recipe(TINY, tmp_path / "run", None, None, None, ["nosuch"])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("Dear all")
    with pytest.raises(UserError, match="holds no run of Spoutnik"):
        plan.plan_recipe(TINY, tmp_path / "foreign", None, None, None)


def test_an_adapter_is_planned_without_the_gradients_and_moments_of_its_base():
    config = ModelConfig.parse(tiny.LLAMA | {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                                             "vocab_size": 49152, "num_attention_heads": 9, "num_key_value_heads": 3}, "test")
    adapter = adapter_parameters(config, AdapterSettings(rank=8))
    assert adapter == 30 * 8 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))  # 2.44 M, as PEFT counts
    parameters = account(config).total_parameters
    assert held_bytes(config) == 16 * parameters and held_bytes(config, adapter) == 2 * parameters + 16 * adapter
    whole, thin = (estimated_speed(config, torch.float32, 512, trained) for trained in (None, adapter))
    assert 1.1 < thin.train / whole.train < 1.5 and thin.step["adamw"] < whole.step["adamw"] / 50
    assert 2 < whole.read / whole.train < 3.5
    assert thin.peak_memory_bytes + held_bytes(config, adapter) < whole.peak_memory_bytes + held_bytes(config)


def test_a_machine_of_fast_products_is_not_taken_for_a_fast_one(monkeypatch):
    """AMX multiplies ten times as fast; what stands beside the products stays, as do the weights that each step reads."""
    config = published_config()
    monkeypatch.setattr(estimate, "read_seconds", lambda: 2e-10)
    for rate in (1e11, 1e12):
        monkeypatch.setattr(estimate, "product_rate", lambda dtype, rate=rate: rate)
        speeds = [estimated_speed(config, torch.bfloat16, 512, trained) for trained in (None, 5_000_000)]
        seconds = [1 / speed.train for speed in speeds]
        products = (6 * 134_515_008 / rate / 0.95, (4 * 134_515_008 + 30_000_000) / rate / 0.95)
        assert [taken - needed for taken, needed in zip(seconds, products)] == pytest.approx([1.35e-3, 1.95e-3], rel=0.02)
        assert speeds[0].decode_step == pytest.approx(2 * 134_515_008 * 2e-10)


def published_config() -> ModelConfig:
    """Of SmolLM2-135M's sizes."""
    return ModelConfig.parse(tiny.LLAMA | {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152, "num_attention_heads": 9,
        "num_key_value_heads": 3, "tie_word_embeddings": True}, "test")


def test_the_least_that_a_step_takes_is_timed_for_small_models_alone():
    assert 0 < rehearsal.least_step_seconds(ModelConfig.parse(tiny.DEEPSEEK, "test"), torch.float32) < 30
    assert rehearsal.least_step_seconds(published_config(), torch.float32) == 0


def test_others_that_compute_are_spoken_of(monkeypatch):
    monkeypatch.setattr(plan, "cores", lambda: 2)
    assert plan.Plan("r", "o", {}, [], load=0.1).beside == ""
    assert "now 6.5 other processes compute on its 2 cores" in plan.Plan("r", "o", {}, [], load=6.5).beside
