"""Pairs for the reward model: those of relevance cannot be told apart by the answer alone."""

import random
from collections import Counter
from itertools import islice

import pytest

from spoutnik.tasks.general import content_and_form, has_content, is_held_out_general
from spoutnik.tasks.general_text import taught_kinds
from spoutnik.tasks.preferences import SHARES, pairs_that_differ, preference_pairs

EVERY = taught_kinds("any")


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_answers_that_differ_in_one_way_are_alike_in_the_others(split):
    for by in ("relevance", "truth", "form"):
        for p, chosen, rejected in islice(pairs_that_differ(random.Random(0), split, by), 400):
            assert is_held_out_general(p.kind, p.data["row"]) == (split == "held_out")
            assert content_and_form(p, chosen) == (1.0, pytest.approx(1.0)) and chosen != rejected
            content, form = content_and_form(p, rejected)
            if by == "form":
                assert form < 1
            else:
                assert content == 0 and form > 0.5, rejected


def test_a_pair_of_relevance_is_irrelevant_false_or_ill_formed():
    pairs = list(islice(preference_pairs(random.Random(1), "train", EVERY, "relevance"), 2000))
    without = sum(not has_content(p, rejected) for p, _, rejected in pairs) / len(pairs)
    assert 0.7 < without < 0.9 and sum(SHARES.values()) == 1  # of those of form, the wrong language has other words
    assert any(p.kind == "any_wish" for p, _, _ in pairs)


def test_most_kinds_of_answers_are_worse_as_often_as_they_are_better():
    """What scores an answer without its question wins nothing: pairs of relevance show good answers on both sides."""
    better, worse = Counter(), Counter()
    for _, chosen, rejected in islice(pairs_that_differ(random.Random(2), "train", "relevance"), 4000):
        better[chosen] += 1
        worse[rejected] += 1
    seen = [answer for answer in better if better[answer] + worse[answer] >= 12]
    assert len(seen) > 30
    assert all(worse[answer] >= better[answer] / 8 for answer in seen)


def test_a_falsehood_copies_a_wish_wrongly_or_wishes_another():
    for p, chosen, rejected in islice(pairs_that_differ(random.Random(3), "train", "truth"), 500):
        assert not has_content(p, rejected) and chosen.split()[0][0].isupper()
