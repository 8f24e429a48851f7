"""The two styles: short or decomposed, in the right language, and with repairs in the careful one."""

import random
import re
from statistics import mean, median

import pytest
from tasks_helpers import CASES, crude_tokens, problem_of

from spoutnik.tasks import FAMILIES, LANGUAGES
from spoutnik.tasks.language import language_consistency, reflection_count
from spoutnik.tasks.steps import product_steps, sum_steps


def thoughts(case, style, language, count=80):
    family = FAMILIES[case[0]]
    return [family.solve(problem_of(case, seed, language), random.Random(seed), style).thought for seed in range(count)]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_lengths_and_language(case, language):
    quick, careful = thoughts(case, "quick", language), thoughts(case, "careful", language)
    assert max(map(crude_tokens, quick)) <= 30
    assert max(map(crude_tokens, careful)) <= 220
    assert mean(map(crude_tokens, careful)) > 1.8 * mean(map(crude_tokens, quick))
    assert mean(language_consistency(text, language) for text in quick + careful) >= 0.98


@pytest.mark.parametrize("case", CASES, ids=str)
def test_some_careful_thoughts_reflect_and_no_quick_one_does(case):
    for language in LANGUAGES:
        reflecting = [reflection_count(text) > 0 for text in thoughts(case, "careful", language)]
        assert sum(reflecting) / len(reflecting) >= 0.1
        assert not any(reflection_count(text) for text in thoughts(case, "quick", language))


@pytest.mark.parametrize(("level", "most"), [(1, 3), (2, 4), (3, 6)])
def test_countdown_attempts_are_few_and_all_different(level, most):
    counts = []
    for text in thoughts(("countdown", level), "careful", "en", 200):
        attempts = re.findall(r"(\d[^,.]*(?:, \d[^,.]* = \d+)+)", text)
        assert len(set(attempts)) == len(attempts) <= 12
        counts.append(len(attempts))
    assert median(counts) <= most


@pytest.mark.parametrize("style", ["quick", "careful"])
def test_equalities_are_true_unless_repaired(style):
    """In arithmetic, every `a op b = c` without a repair word after it is a true statement."""
    for case in [("arithmetic", 1), ("arithmetic", 2), ("arithmetic", 3)]:
        for text in thoughts(case, style, "en"):
            facts = re.findall(r"(-?\d+) ([-+*]) (\d+) = (-?\d+)", text) if style == "careful" else []
            false = [fact for fact in facts if not _holds(*fact)]
            assert len(false) <= 1
            assert not false or reflection_count(text) > 0


def _holds(a, operator, b, c):
    return {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[operator] == int(c)


def test_steps_are_exact():
    for a in range(130):
        for b in range(130):
            assert sum_steps(a, "+", b)[-1][1] == a + b
            assert sum_steps(a, "-", b)[-1][1] == a - b
            if b < 10:
                assert product_steps(a, b)[-1][1] == product_steps(b, a)[-1][1] == a * b


def test_consistency_tells_the_languages_apart():
    assert language_consistency("The answer is right, check it.", "en") == 1.0
    assert language_consistency("The answer is right, check it.", "fr") == 0.0
    assert language_consistency("Attends, c'est faux.", "fr") == 1.0
    assert language_consistency("7 + 5 = 12. Anna > Ben.", "fr") == 1.0
    with pytest.raises(ValueError, match="en, eo"):
        language_consistency("ja", "xx")


def test_reflections_are_counted_in_both_languages():
    assert reflection_count("Wait, that is a mistake. Check it.") == 3
    assert reflection_count("Attends, c'est faux. Vérifions, mais vite.") == 4
    assert reflection_count("7 + 5 = 12.") == 0
