"""Sittings of one experiment on different seeds, joined: as one on all of them, and never surer than that."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_experiment import experiment

from spoutnik.commands.main import app
from spoutnik.errors import UserError
from spoutnik.experiment.finding import ComparedSide, Finding, SeedResult
from spoutnik.experiment.measured import finding_of_differences
from spoutnik.experiment.schema import seeds_of
from spoutnik.experiment.sittings import joined_finding
from spoutnik.files import read_json


def measured(differences: np.ndarray, seeds: list[int], models: list[int] | None = None, problems: bool = True) -> Finding:
    """Of differences (seeds, problems), as an experiment measures it. models: of each seed; others than its number."""
    a, b = (ComparedSide(variant, "rl", "accuracy", "right answers, %", "forum") for variant in "vw")
    rows = tuple(SeedResult(seed, str(model), 0.0, float(row.mean()), 1.0, 1.0, 1.0, 1.0)
                 for seed, model, row in zip(seeds, models or seeds, differences, strict=True))
    asked = Finding("f", "?", "-", "accuracy", "right answers, %", "points", a, b, "higher", 2.0, "w: another", 4, "d",
                    seeds=rows)
    return finding_of_differences(asked, differences, ["a", "b"] * (differences.shape[1] // 2) if problems else None)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 4), min_size=2, max_size=4), st.floats(0, 3), st.floats(0.1, 3))
def test_joined_they_are_the_whole_and_never_surer(seed, sizes, of_problems, of_seeds):
    rng, problems = np.random.default_rng(seed), 40
    values = (rng.normal(0, of_problems, problems) + rng.normal(3, of_seeds, (sum(sizes), 1))
              + rng.normal(0, 1, (sum(sizes), problems)))
    seeds, ends = list(range(sum(sizes))), np.cumsum(sizes)
    parts = [measured(values[end - size:end], seeds[end - size:end]) for size, end in zip(sizes, ends)]
    whole, together = measured(values, seeds), joined_finding(parts)
    assert together.difference == pytest.approx(whole.difference) and together.models == whole.models
    assert together.seed_deviation == pytest.approx(whole.seed_deviation) and together.problems == problems
    assert [one.seed for one in together.seeds] == seeds and together.obstacle == whole.obstacle == ""
    assert together.problem_error >= whole.problem_error - 1e-9
    assert together.low <= whole.low + 1e-9 and together.high >= whole.high - 1e-9
    assert together.p_holds >= whole.p_holds - 1e-9


def test_problems_that_go_the_same_way_in_each_sitting_are_joined_exactly():
    problems = np.random.default_rng(0).normal(0, 2, 60)
    values = problems + np.array([[1.0], [2.0], [4.0], [5.5], [3.0]])
    whole, together = measured(values, [0, 1, 2, 3, 4]), joined_finding([measured(values[:3], [0, 1, 2]),
                                                                         measured(values[3:], [3, 4])])
    for key in ("difference", "low", "high", "seed_deviation", "problem_error", "problem_freedom", "p_holds", "p_does_not"):
        assert getattr(together, key) == pytest.approx(getattr(whole, key)), key


def test_numbers_of_whole_stages_are_joined_by_seed_alone_also_where_a_sitting_has_one():
    values = np.array([[1.0], [2.0], [4.0]])
    parts = [measured(values[:2], [0, 1], problems=False), measured(values[2:], [2], problems=False)]
    assert "one number has no interval" in parts[1].obstacle
    whole, together = measured(values, [0, 1, 2], problems=False), joined_finding(parts)
    assert together.obstacle == "" and together.problem_freedom == 0
    assert (together.low, together.high, together.p_holds) == pytest.approx((whole.low, whole.high, whole.p_holds))


def test_the_same_models_in_two_sittings_count_once():
    values = np.random.default_rng(1).normal(2, 1, (3, 20))
    values[2] = values[0]
    together = joined_finding([measured(values[:2], [0, 1], [7, 8]), measured(values[2:], [2], [7])])
    assert together.models == 2 and together.difference == pytest.approx(values[:2].mean())
    alone = joined_finding([measured(values[:1], [0], [7]), measured(values[2:], [2], [7])])
    assert alone.models == 1 and alone.p_holds == 1.0


@pytest.mark.parametrize("change, sentence", [
    ({"definition": "e"}, "seeds 0, 1 and seeds 2, 3 were measured by other rules or settings"),
    ({"a": ComparedSide("v", "rl", "accuracy", "-", "textbook")}, "better layout of a base was another on seeds 0, 1 than"),
    ({"problems": 7}, "seeds 0, 1 were asked 20 problems, and seeds 2, 3 were asked 7"),
])
def test_what_was_measured_otherwise_is_not_joined_in_silence(change, sentence):
    values = np.random.default_rng(1).normal(2, 1, (4, 20))
    one = joined_finding([measured(values[:2], [0, 1]), replace(measured(values[2:], [2, 3]), **change)])
    assert sentence in one.obstacle and one.p_holds == 1.0 and np.isnan(one.low)


def test_a_seed_that_is_missing_in_one_sitting_is_missing():
    values = np.random.default_rng(1).normal(2, 1, (2, 20))
    lacking = replace(measured(values, [2, 3]), seeds=(), difference=float("nan"), obstacle="seed 2 is missing (why)")
    assert joined_finding([measured(values, [0, 1]), lacking]).obstacle == "seed 2 is missing (why)"


def test_seeds_on_the_command_line_are_told_apart_in_a_sentence():
    assert seeds_of("3,4") == seeds_of("3, 4") == [3, 4]
    for text, sentence in (("3,x", "numbers with"), ("", "numbers with"), ("3,3", "stands twice"), ("-1", "from 0 to")):
        with pytest.raises(UserError, match=sentence):
            seeds_of(text)


@pytest.fixture(scope="module")
def sittings(tmp_path_factory) -> Path:
    """A folder in which the small experiment was run on seed 0 and then, in another folder of artifacts, on seed 1."""
    folder = tmp_path_factory.mktemp("sittings")
    for seed in "01":
        app(command(folder, f"seed{seed}", "--seeds", seed, "--add"), standalone_mode=False)
    return folder


def command(folder: Path, out: str, *more: str) -> list[str]:
    return ["experiment", str(experiment(folder)), "--out", str(folder / out), "--page", str(folder / "page.md"), *more]


def test_two_sittings_on_one_page_are_the_experiment_on_all_seeds(sittings):
    app(command(sittings, "seed0", "--seeds", "0,1", "--page", str(sittings / "whole.md")), standalone_mode=False)
    page, whole = read_json(sittings / "page.json"), read_json(sittings / "whole.json")
    assert [one["seeds"] for one in page["sittings"]] == [[0], [1]] and page["experiments"][0]["seeds"] == [0, 1]
    assert page["experiments"][0]["shared"] == whole["experiments"][0]["shared"] == ["base"]
    for joined, once in zip(page["findings"], whole["findings"], strict=True):
        assert [one["b"] for one in joined["seeds"]] == [one["b"] for one in once["seeds"]]
        assert joined["difference"] == pytest.approx(once["difference"]) and joined["models"] == once["models"] == 2
    assert page["cost"]["making"]["tokens_trained"] > whole["cost"]["making"]["tokens_trained"]  # the base was made twice
    text = (sittings / "page.md").read_text()
    assert "measured in 2 sittings (0; 1) and joined" in text and "on seeds 0, 1." in text


def test_a_sitting_again_is_the_same_page(sittings):
    before = (sittings / "page.md").read_bytes(), (sittings / "page.json").read_bytes()
    for seed in "10":
        app(command(sittings, f"seed{seed}", "--seeds", seed, "--add"), standalone_mode=False)
    assert ((sittings / "page.md").read_bytes(), (sittings / "page.json").read_bytes()) == before


def test_nothing_of_a_page_is_lost_or_joined_with_what_was_measured_otherwise(sittings, tmp_path):
    for name in ("page.json", "page.md"):
        shutil.copy(sittings / name, tmp_path / name)
    (tmp_path / "page").mkdir()
    with pytest.raises(UserError, match="has mini on seed 1 as well, which would be lost. Say --seeds 0 --add, which keeps"):
        app(command(tmp_path, "out", "--seeds", "0", "--dry-run"), standalone_mode=False)
    content = json.loads((tmp_path / "page.json").read_text())
    content["sittings"][1]["seeds"] = [1, 2]
    (tmp_path / "page.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="a sitting of mini on seeds 1, 2, which cannot be taken apart, and 2 would"):
        app(command(tmp_path, "out", "--seeds", "2,3", "--add", "--dry-run"), standalone_mode=False)
    for more in ((), ("--add",)):  # the file's own seeds, 0 and 1
        with pytest.raises(UserError, match="has mini on seed 2 as well, which would be lost. Say --seeds 0,1 --add"):
            app(command(tmp_path, "out", *more, "--dry-run"), standalone_mode=False)
    app(command(tmp_path, "out", "--seeds", "0,1,2,3", "--add", "--dry-run"), standalone_mode=False)
    changed = experiment(tmp_path, lambda values: values["changes"].update({"stages.base.settings.learning_rate": 0.02}))
    with pytest.raises(UserError, match=r"seeds 0 was measured by other rules or settings \(faster_is_better\), and cannot be "
                                        "joined with seeds 5"):
        app(["experiment", str(changed), "--out", str(tmp_path / "out"), "--page", str(tmp_path / "page.md"), "--seeds", "5",
             "--add", "--dry-run"], standalone_mode=False)
