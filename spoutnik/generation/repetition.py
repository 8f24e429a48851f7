"""Has a thought begun to repeat itself? A pure question about its last tokens."""

from array import array
from collections.abc import Sequence

WINDOW = 1024  # tokens that are looked at
MIN_REPEATS = 4  # the same tokens so many times in a row are repetition,
MIN_REPEATED_TOKENS = 48  # if they are so many together: "ha ha ha ha" is none
# Almost the same again and again: of so many last tokens, the share of n-grams that must be new.
NGRAM, STALE_WINDOW, MIN_NEW_SHARE = 6, 384, 0.05


def is_repetitive(ids: Sequence[int]) -> bool:
    """Do the last tokens repeat exactly, or do they say next to nothing that was not said before?"""
    return ends_in_repeats(ids) or is_stale(ids)


def ends_in_repeats(ids: Sequence[int]) -> bool:
    """The last tokens are one piece MIN_REPEATS times or more, MIN_REPEATED_TOKENS together. In time linear in the window:
    `border[n]` is the longest beginning of the reversed tokens that is also an end of their first n, so their period is
    n - border[n] (Knuth, Morris and Pratt's failure function)."""
    if not _may_end_in_repeats(ids):
        return False
    tail = list(ids[-WINDOW:])[::-1]
    border = [0] * (len(tail) + 1)
    k = 0
    for n in range(1, len(tail)):
        while k and tail[n] != tail[k]:
            k = border[k]
        k += tail[n] == tail[k]
        border[n + 1] = k
        period = n + 1 - k
        if n + 1 >= max(MIN_REPEATED_TOKENS, MIN_REPEATS * period):
            return True
    return False


def _may_end_in_repeats(ids: Sequence[int]) -> bool:
    """Do the last tokens stand somewhere before, too? A hundred times faster than the whole question, and mostly enough: of
    MIN_REPEATS pieces, MIN_REPEATED_TOKENS together, even the shortest end agrees with what stands one piece earlier."""
    data, end = array("q", ids[-WINDOW:]).tobytes(), 8 * (MIN_REPEATED_TOKENS // MIN_REPEATS)
    return data.rfind(data[-end:], 0, -8) >= 0


def is_stale(ids: Sequence[int]) -> bool:
    """Of the n-grams in the last STALE_WINDOW tokens, fewer than MIN_NEW_SHARE have not been there before."""
    if len(ids) < 2 * STALE_WINDOW:
        return False
    grams = [tuple(ids[i:i + NGRAM]) for i in range(max(0, len(ids) - 4 * STALE_WINDOW), len(ids) - NGRAM + 1)]
    before, last = set(grams[:-STALE_WINDOW]), grams[-STALE_WINDOW:]
    new = 0
    for gram in last:
        new += gram not in before
        before.add(gram)
    return new < MIN_NEW_SHARE * STALE_WINDOW
