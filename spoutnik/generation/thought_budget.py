"""When a thought is closed: how many tokens a reply may still get, and whether its thought has begun to repeat itself."""

from array import array
from collections.abc import Sequence

from spoutnik.generation.choice import Choice
from spoutnik.generation.options import GenerationPlan

REPETITION_INTERVAL = 32  # tokens of a thought between two checks
WINDOW = 1024  # tokens that are looked at
MIN_REPEATS = 4  # the same tokens so many times in a row are repetition,
MIN_REPEATED_TOKENS = 48  # if they are so many together: "ha ha ha ha" is none
# Almost the same again and again: of so many last tokens, the share of n-grams that must be new.
NGRAM, STALE_WINDOW, MIN_NEW_SHARE = 6, 384, 0.05


class ThoughtBudget:
    """The limits of one plan. max_model_len: tokens of prompt and reply that model and cache have positions for."""

    def __init__(self, plan: GenerationPlan, max_model_len: int):
        self.plan, self.max_model_len = plan, max_model_len

    def remaining_positions(self, choice: Choice) -> int:
        """Positions left, without those that it takes to close an open thought. A segment that needed more would wait in the
        scheduler for ever, and with it all that came after."""
        left = self.max_model_len - len(self.plan.prompt) - len(choice.ids)
        return left - len(self.plan.closing) * choice.stream.thinking

    def remaining_tokens(self, choice: Choice) -> int:
        """Tokens that may still be generated."""
        return min(self.plan.params.max_tokens - choice.generated, self.remaining_positions(choice))

    def remaining_thought(self, choice: Choice) -> int:
        """Of these, tokens of thought; one is kept for the answer."""
        return min(self.plan.max_thinking_tokens - choice.thought_tokens, self.remaining_tokens(choice) - 1)

    def may_open_thought(self, choice: Choice) -> bool:
        """May the answer open a thought (again)? Only if there is budget to think in, and to answer after it."""
        positions = self.remaining_positions(choice) - len(self.plan.closing)
        tokens = min(self.plan.params.max_tokens - choice.generated, positions)
        # More than 2: the mark that opens it, a token of it, one of the answer.
        return self.plan.may_think and self.plan.max_thinking_tokens > choice.thought_tokens and tokens > 2

    def is_repeating(self, choice: Choice) -> bool:
        """Is its thought going in circles? Checked every REPETITION_INTERVAL tokens."""
        ids = choice.thought_ids
        if not (self.plan.detect_loops and choice.stream.thinking
                and len(ids) >= choice.checked_for_repetition + REPETITION_INTERVAL):
            return False
        choice.checked_for_repetition = len(ids)
        return is_repetitive(ids)


def is_repetitive(ids: Sequence[int]) -> bool:
    """Do the last tokens repeat exactly, or is next to nothing in them new?"""
    return ends_in_repeats(ids) or is_stale(ids)


def ends_in_repeats(ids: Sequence[int]) -> bool:
    """The last tokens are one piece MIN_REPEATS times or more, MIN_REPEATED_TOKENS together. In time linear in the window:
    `border[n]` is the longest beginning of the reversed tokens that is also an end of their first n, so their period is
    n - border[n] (Knuth, Morris and Pratt's failure function)."""
    # Mostly enough, and a hundred times faster: even the shortest end of such pieces stands one piece earlier, too.
    data, end = array("q", ids[-WINDOW:]).tobytes(), 8 * (MIN_REPEATED_TOKENS // MIN_REPEATS)
    if data.rfind(data[-end:], 0, -8) < 0:
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
