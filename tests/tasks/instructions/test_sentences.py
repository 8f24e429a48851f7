"""Sentences of a text: ends, abbreviations, initials, numbers, ellipses, quotes, other scripts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.tasks.instructions.sentences import sentences, words


@pytest.mark.parametrize("text, expected", [
    ("", []), ("  \n ", []), ("no end", ["no end"]), ("One. Two", ["One.", "Two"]),
    ("Really?! Yes!!! No.", ["Really?!", "Yes!!!", "No."]),
    ("Dr. Smith and Mrs. Jones came at 9 a.m. and left.", ["Dr. Smith and Mrs. Jones came at 9 a.m. and left."]),
    ("It was 9 a.m. The sun rose.", ["It was 9 a.m.", "The sun rose."]),
    ("We paid 3.50 at www.shop.com/a.html today.", ["We paid 3.50 at www.shop.com/a.html today."]),
    ("J. K. Rowling wrote it.", ["J. K. Rowling wrote it."]), ("No. See No. 5 on Jan. 3.", ["No.", "See No. 5 on Jan. 3."]),
    ("Plan B. The rest is known.", ["Plan B.", "The rest is known."]),
    ("Wait... there is more. And so... The end.", ["Wait... there is more.", "And so...", "The end."]),
    ('"Stop!" he cried. "Why?" (He ran.) **So.** Done.', ['"Stop!"', 'he cried.', '"Why?"', "(He ran.)", "**So.**", "Done."]),
    ("1. First thing\n2. Second thing", ["1.", "First thing 2.", "Second thing"]),  # as the official check counts
    ("It rose by 5. and so on", ["It rose by 5. and so on"]), ("a\nb\n\nc", ["a b c"]),
    ("今天天气很好。我们去市场！好吗？", ["今天天气很好。", "我们去市场！", "好吗？"]),
    ("他说：「好。」走了。", ["他说：「好。」", "走了。"]),
    ("The U.S. army, e.g. in 1999. ok", ["The U.S. army, e.g. in 1999. ok"]), (". . .", [". . ."])])
def test_sentences(text, expected):
    assert sentences(text) == expected


@given(st.text(alphabet="aB1.?!。 \n\"')*", max_size=200))
def test_sentences_keep_every_character_but_white_space(text):
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    assert all(sentence.strip() for sentence in sentences(text))


def test_words():
    assert words("It's 3.5 o'clock_now – déjà-vu") == ["It", "s", "3", "5", "o", "clock_now", "déjà", "vu"]
