"""What every family promises: right solutions, exact verification, determinism, twins, no cheap answer."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks_helpers import CASES, LIGHT, cases, languages, problem_of, seeds, styles

from spoutnik.tasks import FAMILIES, LANGUAGES, Problem, is_held_out, sample
from spoutnik.tasks.corpus import wrong_answer
from spoutnik.tasks.examples import ABOUT, examples


@settings(LIGHT, max_examples=300)
@given(cases, seeds, languages, styles)
def test_every_solution_verifies(case, seed, language, style):
    problem = problem_of(case, seed, language)
    family = FAMILIES[problem.family]
    assert family.verify(problem, problem.answer)
    assert family.verify(problem, family.solve(problem, random.Random(seed), style).answer)


@settings(LIGHT, max_examples=150)
@given(cases, seeds, languages)
def test_wrapping_is_forgiven_and_content_is_not(case, seed, language):
    problem = problem_of(case, seed, language)
    family = FAMILIES[problem.family]
    assert family.verify(problem, f"  **{problem.answer}**. ")
    assert not family.verify(problem, "")
    assert not family.verify(problem, problem.prompt)
    assert not family.verify(problem, problem.answer + " or " + problem.answer)
    assert not family.verify(problem, wrong_answer(family, problem, problem.answer, random.Random(seed)))


@settings(LIGHT, max_examples=300)
@given(cases, seeds, st.text(max_size=60) | st.text("0123456789+-*/()= .,xandet", max_size=300))
def test_verify_never_raises(case, seed, answer):
    problem = problem_of(case, seed % 5)
    assert FAMILIES[problem.family].verify(problem, answer) in (True, False)


@pytest.mark.parametrize(
    "hostile", ["(" * 5000, "9" * 9999, "9**9**9", "1" * 5000 + " = 3", " ," * 9999, "--" * 99, "\0"]
)
def test_hostile_answers_are_just_wrong(hostile):
    for case in CASES:
        problem = problem_of(case, 1)
        assert FAMILIES[problem.family].verify(problem, hostile) is False


@LIGHT
@given(cases, seeds, languages)
def test_generation_and_solution_depend_on_the_seed_alone(case, seed, language):
    first, second = problem_of(case, seed, language), problem_of(case, seed, language)
    assert first == second
    family = FAMILIES[first.family]
    assert family.solve(first, random.Random(seed), "careful") == family.solve(second, random.Random(seed), "careful")


@LIGHT
@given(cases, seeds)
def test_twins_share_key_and_split(case, seed):
    english, french = (problem_of(case, seed, language) for language in LANGUAGES)
    assert english.key == french.key
    assert english.prompt != french.prompt or not any(map(str.isalpha, english.prompt))  # 1 - 9 = ?
    assert is_held_out(english) == is_held_out(french)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_splits_are_disjoint_and_held_out_is_about_one_in_eight(case):
    keys = {problem_of(case, seed).key: is_held_out(problem_of(case, seed)) for seed in range(400)}
    family, rng = FAMILIES[case[0]], random.Random(0)
    assert not is_held_out(sample(family, rng, case[1], "en", "train"))
    assert is_held_out(sample(family, rng, case[1], "fr", "held_out"))
    if len(keys) > 300:  # the smallest levels have too few problems for a rate
        assert 0.06 < sum(keys.values()) / len(keys) < 0.2


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_constant_answer_wins(case, language):
    answers = Counter(problem_of(case, seed, language).answer for seed in range(400))
    assert max(answers.values()) / 400 < 0.35


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_wrong_arguments_are_refused_with_a_sentence(family):
    with pytest.raises(ValueError, match=f"{family.name} has no level 9: its levels are 1, 2, 3"):
        family.generate(random.Random(0), 9, "en")
    with pytest.raises(ValueError, match="en, fr"):
        family.generate(random.Random(0), 1, "de")
    with pytest.raises(ValueError, match="quick, careful"):
        family.solve(problem_of((family.name, 1), 0), random.Random(0), "slow")
    with pytest.raises(ValueError, match="train, held_out"):
        sample(family, random.Random(0), 1, "en", "test")


def test_an_expanded_equation_shares_the_split_of_the_asked_one():
    """The careful thought of level 3 writes an equation of level 2: both must be train, or both held out."""
    family = FAMILIES["equations"]
    for seed in range(50):
        asked = problem_of(("equations", 3), seed)
        expanded = Problem(family, 2, "en", "", asked.answer, asked.data | {"shown_inner": 0})
        assert is_held_out(asked) == is_held_out(expanded)
        assert family.verify(expanded, asked.answer)


def test_strawberry_is_held_out_with_all_its_letters():
    family, rng = FAMILIES["spell"], random.Random(0)
    for letter in ("r", "s", ""):
        assert is_held_out(family.pose("strawberry", letter, 2, "en", rng))
    assert family.pose("strawberry", "r", 2, "fr", rng).answer == "3"
    assert family.pose("strawberry", "", 3, "en", rng).answer == "10"


@pytest.mark.parametrize("language", LANGUAGES)
def test_operations_are_asked_in_many_ways_that_name_both_numbers(language):
    family, rng = FAMILIES["operations"], random.Random(1)
    prompts = {family.pose(17, sign, 26, 2, language, rng).prompt for sign in "+-*" for _ in range(300)}
    assert len(prompts) > 80 and all("17" in prompt and "26" in prompt for prompt in prompts)
    small = {family.pose(3, "+", 4, 1, language, rng).prompt for _ in range(300)}
    assert any(("three plus four" if language == "en" else "trois plus quatre") in prompt for prompt in small)


def test_every_example_of_a_card_is_a_problem_of_its_family_that_its_answer_solves():
    for name, family in FAMILIES.items():
        for language in LANGUAGES:
            shown = examples(name, language)
            assert shown and ABOUT[language][name]
            for problem in shown:
                assert problem.family == name and problem.language == language and family.verify(problem, problem.answer)
                solved = family.solve(problem, random.Random(0), "careful")
                assert family.verify(problem, solved.answer)
