"""What findings compare, of samples that are written down here."""

import math
from pathlib import Path

import numpy as np
import pytest

from spoutnik.experiment.measures import measure
from spoutnik.experiment.stage_numbers import LOGGED, MADE
from spoutnik.files import read_json, read_jsonl, write_jsonl
from spoutnik.recipe.artifacts import Artifact

PREBUILT = sorted((Path(__file__).parents[2] / "spoutnik" / "prebuilt").rglob("manifest.json"))


def evaluated(folder: Path, thoughts: list[list[str]]) -> Artifact:
    """Thoughts of each problem's samples; a word is a token."""
    rows = [{"task": "t", "problem": str(number), "sample": sample, "correct": 1.0, "finished": True, "well_formed": True,
             "answered": True, "answer": "1", "tokens": 9, "language": "en", "thought": thought,
             "thought_tokens": len(thought.split())}
            for number, of_problem in enumerate(thoughts) for sample, thought in enumerate(of_problem)]
    write_jsonl(folder / "samples.jsonl", rows)
    return Artifact("s", folder, {"content": "c", "kind": "sft"}, folder)


def test_a_rate_is_of_all_thoughts_and_replies_without_one_do_not_lower_it(tmp_path):
    thinks = "wait a b c d e f g h i"  # one word of ten
    seldom = measure("reflections_per_100_tokens", evaluated(tmp_path / "seldom", [[thinks, ""], ["", ""], ["", ""]]), "forum")
    always = measure("reflections_per_100_tokens", evaluated(tmp_path / "always", [[thinks, thinks]] * 3), "forum")
    assert seldom.mean == pytest.approx(10) and always.mean == pytest.approx(10)
    length = measure("tokens_per_thought", evaluated(tmp_path / "length", [[thinks, ""], ["", "a b"]]), "forum")
    assert length.mean == pytest.approx(6)
    assert measure("thought_tokens", Artifact("s", tmp_path, {}, tmp_path / "length"), "forum").mean == pytest.approx(3)


def test_the_spread_of_a_rate_is_that_of_the_ratio(tmp_path):
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 40, 300)
    words = rng.binomial(tokens, 0.1)
    thoughts = [[" ".join(["wait"] * w + ["a"] * (n - w))] for n, w in zip(tokens, words)]
    measured = measure("reflections_per_100_tokens", evaluated(tmp_path, thoughts), "forum")
    drawn = rng.integers(0, 300, (2000, 300))
    spread = (100 * words[drawn].sum(1) / tokens[drawn].sum(1)).std()
    assert measured.mean == pytest.approx(100 * words.sum() / tokens.sum())
    assert np.std(list(measured.values.values()), ddof=1) / math.sqrt(300) == pytest.approx(spread, rel=0.08)


def test_without_any_thought_there_is_no_rate(tmp_path):
    assert math.isnan(measure("tokens_per_thought", evaluated(tmp_path, [["", ""], ["", ""]]), "forum").mean)


@pytest.mark.parametrize("manifest", PREBUILT, ids=lambda path: path.parent.name)
def test_what_shipped_stages_logged_is_known(manifest):
    described = read_json(manifest)
    logged = {key for row in read_jsonl(manifest.with_name("log.jsonl")) for key in row}
    assert logged <= LOGGED[described["kind"]] and set(described["metrics"]) <= MADE[described["kind"]]
