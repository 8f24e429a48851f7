"""Helpers shared by the tests of tasks."""

import random
import re

from hypothesis import settings
from hypothesis import strategies as st

from spoutnik.tasks import FAMILIES, LANGUAGES, STYLES, Problem

CASES = [(name, level) for name, family in FAMILIES.items() for level in family.levels]
LIGHT = settings(max_examples=40, deadline=None, derandomize=True)
cases = st.sampled_from(CASES)
seeds = st.integers(0, 2**32)
languages = st.sampled_from(LANGUAGES)
styles = st.sampled_from(STYLES)


def problem_of(case: tuple[str, int], seed: int, language: str = "en") -> Problem:
    name, level = case
    return FAMILIES[name].generate(random.Random(seed), level, language)


def crude_tokens(text: str) -> int:
    """A count near that of the tokenizer: digits and punctuation one by one, words whole."""
    return len(re.findall(r"\d|[^\W\d_]+|[^\w\s]", text))
