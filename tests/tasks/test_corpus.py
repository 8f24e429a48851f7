"""The pretraining text, its drills and the accuracy reward."""

import random
import re
from itertools import islice

import pytest
from tasks_helpers import problem_of

from spoutnik.errors import RunError, UserError
from spoutnik.tasks import FAMILIES, FIRST_FAMILIES, Problem, Task, accuracy_reward, sample
from spoutnik.tasks.catalog import find_task, find_tasks
from spoutnik.tasks.corpus import BOOK, FLAWED_SHARE, FORUM, TEXTBOOK, WEIGHTS, documents, flawed
from spoutnik.tasks.drills import DRILLS, drill_document
from spoutnik.tasks.midtraining import midtraining_documents

FIRST = find_tasks(FIRST_FAMILIES)


def test_mix_and_shape():
    texts = list(islice(documents(random.Random(0), FIRST), 3000))
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    layouts = {layout.problem.format(""): layout for both in (FORUM, BOOK) for layout in both.values()}
    seen = dict.fromkeys(layouts, 0)
    for text in texts:
        start = next((start for start in layouts if text.startswith(start)), None)
        if start is None:
            continue  # a drill
        seen[start] += 1
        lines, layout = text.split("\n"), layouts[start]
        assert len(lines) == 3 or len(lines) == 2 and layout not in BOOK.values()
        used = layout if len(lines) == 3 else (layout.problem, layout.answer)
        assert all(line.startswith(label.format("")) for line, label in zip(lines, used, strict=True))
    shares = {start: count / len(texts) for start, count in seen.items()}
    assert abs(shares["Exercise: "] + shares["Exercice : "] - WEIGHTS[TEXTBOOK]) < 0.04
    assert abs(sum(shares.values()) - (1 - WEIGHTS["drills"])) < 0.04
    assert abs(shares["Exercise: "] - shares["Exercice : "]) < 0.06


@pytest.mark.parametrize("kinds", [documents, midtraining_documents])
def test_in_a_forum_that_seldom_thinks_a_thought_is_careful_and_pays(kinds):
    texts = islice(kinds(random.Random(0), find_tasks(["arithmetic"]), forum_thought_share=0.25), 1200)
    replies = [reply for text in texts for reply in re.findall(
        r"Question: [^\d\n]*(\d+(?: ?[-+*] ?\d+)+)[^\d\n]*\n(?:Thinking: (.*)\n)?Answer: (-?\d+)", text)]
    thought = [eval(sum_) == int(answer) for sum_, thinking, answer in replies if thinking]  # noqa: S307 - our own sums
    at_once = [eval(sum_) == int(answer) for sum_, thinking, answer in replies if not thinking]  # noqa: S307
    assert len(replies) > 150 and abs(len(thought) / len(replies) - 0.25) < 0.09
    assert all(thought) and sum(at_once) < 0.95 * len(at_once)


def test_documents_depend_on_the_seed_alone():
    first, second = (list(islice(documents(random.Random(5), FIRST), 50)) for _ in range(2))
    assert first == second


def test_no_held_out_problem_enters_the_corpus():
    """The corpus never asks a held-out problem, in any language or wording."""
    asked = set()
    for text in islice(documents(random.Random(1), [FAMILIES["arithmetic"]]), 3000):
        match = re.match(r"(?:Question|Exerci[sc]e) ?: [^\d\n]*(\d+(?: [-+*] \d+)+)", text)
        asked |= {match.group(1)} if match else set()
    assert len(asked) > 1500
    rng = random.Random(2)
    for level in (1, 1, 1, 2, 3):
        for _ in range(400):
            held_out = sample(FAMILIES["arithmetic"], rng, level, "en", "held_out")
            assert held_out.data["expression"] not in asked


def test_the_corpus_needs_a_family():
    with pytest.raises(ValueError, match="at least one family"):
        next(documents(random.Random(0), []))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_flawed_solutions_are_wrong(family):
    assert 0.1 <= FLAWED_SHARE <= 0.3
    for seed in range(40):
        problem = problem_of((family.name, 1 + seed % 3), seed, "fr")
        rng = random.Random(seed)
        trace = flawed(family, problem, family.solve(problem, rng, "careful"), rng)
        assert not family.verify(problem, trace.answer)


def test_drill_equalities_are_true():
    rng, equalities = random.Random(0), 0
    for language in ("en", "fr"):
        for _ in range(60 * len(DRILLS) // 4):
            text = drill_document(rng, language, lambda word: True)
            for a, operator, b, c in re.findall(r"(-?\d+) ([-+*/]) \(?(-?\d+)\)? = (-?\d+)", text):
                a, b, c = int(a), int(b), int(c)
                assert {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else None}[operator] == c
                equalities += 1
    assert equalities > 500


def test_the_accuracy_reward_is_the_verifier_s():
    problem = problem_of(("arithmetic", 1), 0)
    assert accuracy_reward(problem, problem.answer) == 1.0
    assert accuracy_reward(problem, "") == 0.0


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1, None, "right"])
def test_what_is_no_grade_is_refused_and_the_verifier_named(value):
    class Careless(Task):
        name = "careless"

        def verify(self, problem, answer):
            return value

    with pytest.raises(RunError, match="the verifier of task 'careless' gives"):
        accuracy_reward(Problem(Careless(), 1, "en", "What?", "1", {}), "1")


def test_a_name_that_is_no_task_suggests_the_nearest():
    assert find_task("countdown").name == "countdown"
    with pytest.raises(UserError, match="no task 'countdwn'. Did you mean 'countdown'?"):
        find_task("countdwn")
