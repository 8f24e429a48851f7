"""How an evaluation samples replies, and the examples that it shows.

R1's protocol (R1 section 3, appendix D.1) is the style "chat" (tasks/prompt_styles.py) without a system prompt and without
examples, at temperature 0.6 and top-p 0.95. The thought is stripped before the answer is graded.
"""

from collections.abc import Sequence

from pydantic import Field

from spoutnik.tasks import Problem
from spoutnik.tasks.grading import accuracy_reward
from spoutnik.train.settings import Settings

LONGEST_REPLY = 32_768  # tokens: R1's limit


class AskingSettings(Settings):
    """How replies are sampled. R1's values."""

    samples: int = Field(default=4, gt=0, le=16384)
    """Replies to each problem (k); pass@1 is their mean. R1 took 64 for AIME and GPQA, 16 for MATH, 8 for LiveCodeBench."""
    temperature: float = Field(default=0.6, ge=0, le=2)
    """Of sampling; 0 is greedy."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """The share of the probability to sample from."""
    max_tokens: int | None = Field(default=None, gt=1)
    """The longest reply, thought included. None is R1's 32,768. A local model's positions bound it, prompt by prompt."""
    seed: int = Field(default=0, ge=0)
    """Of sampling, together with the problem and the sample's number."""


def worked_examples(problems: Sequence[Problem], count: int) -> list[tuple[str, str]]:
    """(question, answer) of the first `count` problems whose gold answer passes their own verifier, bare, boxed or after
    "Answer:", as the task wants it. Fewer where not so many do."""
    examples = []
    for problem in problems:
        if len(examples) == count:
            break
        gold = problem.answer
        forms = (gold, f"\\boxed{{{gold}}}", f"Answer: {gold}", f"ANSWER: {gold}")
        passing = next((form for form in forms if gold and accuracy_reward(problem, form) == 1.0), None)
        if passing is not None:
            examples.append((problem.prompt, passing))
    return examples
