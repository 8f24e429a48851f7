"""All metrics of saved samples at once."""

import pytest
from saved_samples import row, rows_of

from spoutnik.errors import UserError
from spoutnik.evals.metrics import equality_of, metrics
from spoutnik.tasks import FAMILIES
from spoutnik.tasks.benchmarks.maths import MathsBenchmark


def test_every_metric_has_an_interval():
    rows = rows_of([[1, 0, 1], [0, 0, 0], [1, 1, 1]] * 10)
    scores = metrics(rows, (2,))
    assert list(scores) == ["pass@1", "pass@2", "cons@2", "truncated", "without_answer", "thought_tokens", "abstained",
                            "accuracy_when_answering", "brier", "ece"]
    assert all(score["low"] <= score["mean"] <= score["high"] for name, score in scores.items() if name != "ece")
    assert scores["pass@2"]["mean"] == pytest.approx(2 / 3) and scores["cons@2"]["mean"] < 2 / 3


def test_what_cannot_be_voted_on_has_no_votes():
    programs = [row(f"p{number % 5}", number // 5, 1.0, gold="") for number in range(15)]
    assert not {"cons@2", "brier", "ece"} & set(metrics(programs, (2,)))
    assert "brier" not in metrics(rows_of([[1], [0]]))
    with pytest.raises(UserError, match="needs more than 3"):
        metrics(programs, (3,))


def test_a_task_may_say_which_answers_are_the_same():
    equal = equality_of(MathsBenchmark("maths", ""))
    rows = [row("p", number, 0.0, answer) for number, answer in enumerate(["0.5", "1/2", "\\frac12", "7", "8"])]
    assert metrics(rows, (), equal)["brier"]["mean"] == pytest.approx(0.36)
    assert metrics(rows)["brier"]["mean"] == pytest.approx(0.04) and equality_of(FAMILIES["liars"]) is None
