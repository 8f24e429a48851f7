"""reasoning-gym as an outside judge of our generators, solvers and verifiers."""

import builtins
import random

import pytest

pytest.importorskip("reasoning_gym")

from spoutnik.tasks import FAMILIES
from spoutnik.tasks.corpus import wrong_answer
from spoutnik.tasks.gym import SETTINGS, gym_problems, gym_score


@pytest.mark.parametrize("name", SETTINGS)
def test_both_judges_agree_on_right_and_wrong_answers(name):
    for problem, scorer in gym_problems(name, 15, seed=3):
        family, rng = FAMILIES[problem.family], random.Random(problem.prompt)
        assert problem.data["shown_gym"]["source_dataset"] == name
        for style in ("quick", "careful"):
            answer = family.solve(problem, rng, style).answer
            assert family.verify(problem, answer) and scorer(answer)
        for _ in range(4):
            wrong = wrong_answer(family, problem, problem.answer, rng)
            assert not family.verify(problem, wrong) and not scorer(wrong)


def test_the_gym_s_own_answers_satisfy_our_verifier():
    import reasoning_gym

    for name, settings in SETTINGS.items():
        for problem, _ in gym_problems(name, 10, seed=7):
            dataset = reasoning_gym.create_dataset(name, seed=7, size=600, **settings)
            entry = dataset[problem.data["shown_gym"]["source_index"]]
            assert FAMILIES[problem.family].verify(problem, entry["answer"])


def test_dangerous_and_senseless_answers_are_wrong():
    entry = {"metadata": {"source_dataset": "countdown", "numbers": [1, 2, 3], "target": 6}}
    assert gym_score(entry, "1 + 2 + 3")
    for answer in ("9**9**9**9", "9* *9", "__import__('os')", "1 +", "", "1/0", "(" * 200):
        assert not gym_score(entry, answer)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="choose among countdown"):
        gym_problems("sudoku", 3, 0)
    with pytest.raises(ValueError, match="at least 1"):
        gym_problems("countdown", 0, 0)


def test_a_missing_gym_is_said_with_its_remedy(monkeypatch):
    real = builtins.__import__

    def without_gym(name, *rest, **more):
        if name == "reasoning_gym":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_gym)
    with pytest.raises(ValueError, match="pip install reasoning-gym"):
        gym_problems("countdown", 1, 0)
