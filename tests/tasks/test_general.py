"""The general prompts, their answers, and the rubric that measures them."""

import random
from itertools import islice

import pytest

from spoutnik.tasks.general import (
    KINDS,
    follow_up_general,
    good_answer,
    helpfulness,
    is_held_out_general,
    sample_general,
)
from spoutnik.tasks.general_text import FIRST_KINDS, ROWS, TEXT, taught_kinds
from spoutnik.tasks.language import language_consistency
from spoutnik.tasks.preferences import preference_pairs


def test_kinds_are_complete_in_both_languages():
    assert len(KINDS) == 20 and KINDS[:15] == FIRST_KINDS
    assert set(TEXT["en"]) == set(TEXT["fr"]) == set(ROWS) == set(taught_kinds("any")) == {*taught_kinds(), "any_wish"}
    assert all(len(row) == 4 for rows in ROWS.values() for row in rows)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_rubric_prefers_the_good_answer(split):
    pairs = list(islice(preference_pairs(random.Random(0), split), 1000))
    assert sum(helpfulness(p, chosen) > helpfulness(p, rejected) for p, chosen, rejected in pairs) >= 950
    assert all(helpfulness(p, chosen) == pytest.approx(1.0) for p, chosen, _ in pairs)
    assert all(is_held_out_general(p.kind, p.data["row"]) == (split == "held_out") for p, _, _ in pairs)


def test_answers_are_in_the_language_and_a_void_one_is_worth_nothing():
    rng = random.Random(1)
    for _ in range(500):
        p = sample_general(rng, rng.choice(("en", "fr")), "train")
        assert language_consistency(good_answer(p, rng), p.language) >= 0.8
        assert helpfulness(p, "") == helpfulness(p, "?!") == 0.0
        assert helpfulness(p, p.prompt * 5) < 0.9


def test_spoutnik_knows_itself():
    rng = random.Random(2)
    answers = []
    while len(answers) < 20:
        p = sample_general(rng, "fr", "train")
        if p.kind == "identity":
            answers.append(good_answer(p, rng))
    assert all("Spoutnik" in answer and "petit modèle" in answer for answer in answers)


def test_a_follow_up_is_of_the_same_kind_and_split_and_about_something_else():
    rng = random.Random(3)
    for split in ("train", "held_out"):
        for language in ("en", "fr"):
            for _ in range(300):
                previous = sample_general(rng, language, split)
                then = follow_up_general(previous, rng, split)
                if then is not None:
                    assert then.kind == previous.kind and then.data != previous.data and then.subject in then.prompt
                    assert is_held_out_general(then.kind, then.data["row"]) == (split == "held_out")


def test_wrong_arguments():
    with pytest.raises(ValueError, match="en or fr"):
        sample_general(random.Random(0), "de", "train")
