"""How much thoughts reflect: the paper's ten words (R1, appendix C) with their French twins, per thought and per 100 tokens,
and the share of thoughts that check or retry.

More words per thought say little by themselves: longer thoughts have more of every word, and rewards by a coin lengthen
thoughts as well (docs/zero.md). Per 100 tokens they say how thoughts are written, whatever their length.
"""

import re
from collections.abc import Sequence

from spoutnik.tasks.language import REFLECTION_WORDS, reflection_count

CHECK_WORDS = frozenset("verify evaluate check vérifie vérifier vérifions vérification évalue évaluons".split())
RETRY_WORDS = frozenset("wait mistake retry error wrong attends attendez erreur essaie réessaie faux".split())
assert CHECK_WORDS | RETRY_WORDS < REFLECTION_WORDS  # but, however and their twins only turn a sentence
_WORD = re.compile(r"[^\W\d_]+")


def checks_or_retries(thought: str) -> bool:
    """Whether a thought has a word that announces a check, or one that takes back what was tried."""
    return any(word.lower() in CHECK_WORDS or word.lower() in RETRY_WORDS for word in _WORD.findall(thought))


def thought_measures(thoughts: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Of the completions of one model: their thoughts with the numbers of their tokens, "" and 0 where there is none.

    Returns:
        thought_share: of completions with a thought. thought_tokens, reflections: means over all completions.
        reflections_per_100: of the tokens of thoughts. checks_or_retries: share of the thoughts that there are.
    """
    count, tokens = max(len(thoughts), 1), sum(length for _, length in thoughts)
    there = [thought for thought, _ in thoughts if thought.strip()]
    words = sum(reflection_count(thought) for thought in there)
    return {"thought_share": len(there) / count, "thought_tokens": tokens / count, "reflections": words / count,
            "reflections_per_100": 100 * words / max(tokens, 1),
            "checks_or_retries": sum(map(checks_or_retries, there)) / max(len(there), 1)}
