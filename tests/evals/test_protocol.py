"""The evaluation protocol: what is asked, what is graded, what an interval means."""

import math

import pytest

from spoutnik.engine.outputs import CompletionOutput, RequestOutput
from spoutnik.evals.protocol import EvaluationSettings, grade, held_out_count, held_out_problems, summarize
from spoutnik.evals.statistics import mean_interval
from spoutnik.files import write_jsonl
from spoutnik.tasks import FAMILIES, is_held_out
from spoutnik.tasks.catalog import find_tasks
from spoutnik.train.pretrain import train_tokenizer
from spoutnik.train.prompt_style import read_plain


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(0, 500, 300)


class Answers:
    """An engine that replies with prepared texts, one list of samples per prompt."""

    def __init__(self, tokenizer, replies):
        self.tokenizer, self.replies = tokenizer, replies

    def generate(self, prompts, params, *, seed, on_progress=None):
        assert (params.temperature, params.top_p, params.n) == (0.6, 0.95, len(self.replies[0]))
        self.prompts = prompts
        return [RequestOutput(str(i), None, prompt, [CompletionOutput(n, text, self.ids(text), finish_reason="stop")
                                                     for n, text in enumerate(texts)])
                for i, (prompt, texts) in enumerate(zip(prompts, self.replies))]

    def ids(self, text):
        thought, mark, answer = text.partition("</think>")
        end = [self.tokenizer.end_think_id] if mark else []
        return self.tokenizer.encode(thought) + end + self.tokenizer.encode(answer) + [self.tokenizer.eos_id]


def test_problems_are_held_out_balanced_and_the_same_for_every_model():
    problems = held_out_problems(list(FAMILIES.values()), 12)
    assert problems == held_out_problems(list(FAMILIES.values()), 12)
    assert all(is_held_out(p) for p in problems) and len(problems) == 12 * len(FAMILIES)
    assert {(p.level, p.language) for p in problems if p.family == "countdown"} == {
        (level, language) for level in (1, 2, 3) for language in ("en", "fr")}


def test_they_are_counted_without_being_drawn(tmp_path):
    rows = [{"prompt": f"How many sides have {n} squares?", "answer": str(4 * n), "verifier": "numeric"} for n in range(1, 41)]
    write_jsonl(tmp_path / "sides.jsonl", rows)
    for per_task in (1, 12):
        tasks = find_tasks(["countdown", "liars", str(tmp_path / "sides.jsonl")])
        assert held_out_count(tasks, per_task) == len(held_out_problems(tasks, per_task))
    assert held_out_count(tasks, 10**6) < 2 * 10**6 + 40  # of a file what there is


def test_the_thought_is_stripped_before_grading_and_pass_at_1_is_the_mean_over_samples(tokenizer):
    problem = held_out_problems([FAMILIES["arithmetic"]], 1)[0]
    right = problem.answer
    replies = [f"so\n</think>\n\n{right}", f"{right}\n</think>\n\n999999", f"{right}", f"{right}</think>"]
    engine = Answers(tokenizer, [replies])
    graded = grade(engine, tokenizer, [problem], EvaluationSettings(samples=4), 0)
    assert [g.correct for g in graded[0]] == [1.0, 0.0, 0.0, 0.0]
    summary = summarize(graded)
    assert summary["accuracy"]["mean"] == summary["families"]["arithmetic"]["mean"] == 0.25
    assert summary["well_formed"] == 0.5
    assert engine.prompts[0][-1] == tokenizer.encode("\n")[0] and tokenizer.think_id in engine.prompts[0]


def test_the_base_model_is_asked_and_read_in_plain_text(tokenizer):
    problem = held_out_problems([FAMILIES["arithmetic"]], 1)[0]
    engine = Answers(tokenizer, [[f"Answer: {problem.answer}", f"Thinking: hm.\nAnswer: {problem.answer}", "Hello"]])
    graded = grade(engine, tokenizer, [problem], EvaluationSettings(samples=3), 0, "forum")
    assert [g.correct for g in graded[0]] == [1.0, 1.0, 0.0]
    assert graded[0][1].reply.thought == "hm." and tokenizer.think_id not in engine.prompts[0]
    assert read_plain(tokenizer.encode("Réflexion : a.\nRéponse : 4"), tokenizer, True, "forum").answer == "4"
    assert not read_plain(tokenizer.encode("Answer: 4"), tokenizer, True, "textbook").well_formed
    engine = Answers(tokenizer, [[f"Solution: so.\nResult: {problem.answer}", f"Answer: {problem.answer}"]])
    graded = grade(engine, tokenizer, [problem], EvaluationSettings(samples=2), 0, "textbook")
    assert [g.correct for g in graded[0]] == [1.0, 0.0]


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    import numpy as np

    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        chances = rng.beta(2, 3, size=120)  # problems differ in difficulty; two samples of each
        means = rng.binomial(2, chances) / 2
        _, low, high = mean_interval(list(means))
        covered += low <= 0.4 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_intervals_at_the_ends_claim_no_certainty():
    mean, low, high = mean_interval([0.0] * 50)
    assert mean == low == 0.0 and 0.05 < high < 0.1
    mean, low, high = mean_interval([1.0] * 50)
    assert mean == high == 1.0 and low < 0.95
    assert math.isnan(mean_interval([])[0])
