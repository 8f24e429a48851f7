"""Has a thought begun to go in circles? A pure question about its last tokens."""

from array import array
from collections.abc import Sequence

WINDOW = 1024  # tokens that are looked at
REPEATS = 4  # the same tokens so many times in a row are a circle,
LEAST = 48  # if they are so many together: "ha ha ha ha" is none
GRAM, NOVELTY = 6, 0.05  # near circles: runs of so many tokens, and the share of them that must be new
NEAR = 384  # in so many tokens


def in_circles(ids: Sequence[int]) -> bool:
    """Do the last tokens repeat exactly, or do they say next to nothing that was not said before?"""
    return repeats(ids) or stale(ids)


def repeats(ids: Sequence[int]) -> bool:
    """The last tokens are one piece REPEATS times or more, LEAST tokens together. In time linear in the window: `border[n]` is
    the longest beginning of the reversed tokens that is also an end of their first n, so their period is n - border[n]."""
    if not _repeated(ids):
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
        if n + 1 >= max(LEAST, REPEATS * period):
            return True
    return False


def _repeated(ids: Sequence[int]) -> bool:
    """Are the last tokens somewhere before, as they must be in any circle? Found a hundred times faster than a circle is: of
    the REPEATS pieces, LEAST tokens together, even the shortest end agrees with what stands one piece earlier."""
    data, end = array("q", ids[-WINDOW:]).tobytes(), 8 * (LEAST // REPEATS)
    return data.rfind(data[-end:], 0, -8) >= 0


def stale(ids: Sequence[int]) -> bool:
    """Of the runs of GRAM tokens in the last NEAR, fewer than NOVELTY have not been there before."""
    if len(ids) < 2 * NEAR:
        return False
    grams = [tuple(ids[i:i + GRAM]) for i in range(max(0, len(ids) - 4 * NEAR), len(ids) - GRAM + 1)]
    before, last = set(grams[:-NEAR]), grams[-NEAR:]
    new = 0
    for gram in last:
        new += gram not in before
        before.add(gram)
    return new < NOVELTY * NEAR
