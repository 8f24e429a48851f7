"""Circles in a thought."""

import random

from hypothesis import given
from hypothesis import strategies as st

from spoutnik.generation.thought_budget import (
    MIN_REPEATED_TOKENS,
    MIN_REPEATS,
    STALE_WINDOW,
    ends_in_repeats,
    is_repetitive,
    is_stale,
)


@given(before=st.lists(st.integers(0, 9), max_size=40), piece=st.lists(st.integers(0, 9), min_size=1, max_size=30),
       cut=st.integers(0, 29))
def test_a_piece_that_comes_again_and_again_is_found_wherever_it_is_cut(before, piece, cut):
    times = max(MIN_REPEATS + 1, -(-MIN_REPEATED_TOKENS // len(piece)) + 1)
    assert ends_in_repeats(before + piece * times + piece[:cut % len(piece)])


@given(st.lists(st.integers(0, 9), max_size=200))
def test_repeats_agrees_with_the_plain_definition(ids):
    def plain():
        for period in range(1, len(ids) // MIN_REPEATS + 1):
            run = 0
            while run + period < len(ids) and ids[-1 - run] == ids[-1 - run - period]:
                run += 1
            if run + period >= max(MIN_REPEATED_TOKENS, MIN_REPEATS * period):
                return True
        return False

    assert ends_in_repeats(ids) == plain()


def test_thoughts_that_go_on_are_left_alone():
    rng = random.Random(0)
    words = [[rng.randrange(1000) for _ in range(rng.randint(1, 6))] for _ in range(300)]
    thought = [token for _ in range(3000) for token in rng.choice(words)]
    assert not any(is_repetitive(thought[:n]) for n in range(0, len(thought), 97))
    counting = [t for n in range(400) for t in (*map(int, str(n)), 11, 12)]  # "n. ..." over and over, but further each time
    assert not is_repetitive(counting)


def test_paragraphs_said_again_in_another_order_are_circles():
    rng = random.Random(1)
    paragraphs = [[rng.randrange(1000) for _ in range(60)] for _ in range(6)]
    thought = [token for _ in range(30) for token in rng.choice(paragraphs)]
    assert is_stale(thought) and len(thought) > 2 * STALE_WINDOW
