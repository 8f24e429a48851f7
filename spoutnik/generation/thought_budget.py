"""How many tokens a reply may still get, and whether its thought has begun to repeat itself."""

from spoutnik.generation.choice import Choice
from spoutnik.generation.options import GenerationPlan
from spoutnik.generation.repetition import is_repetitive

REPETITION_INTERVAL = 32  # tokens of a thought between two checks


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
        return min(self.plan.max_thinking_tokens - choice.stream.thought_tokens, self.remaining_tokens(choice) - 1)

    def may_open_thought(self, choice: Choice) -> bool:
        """May the answer open a thought (again)? Only if there is budget to think in, and to answer after it."""
        positions = self.remaining_positions(choice) - len(self.plan.closing)
        tokens = min(self.plan.params.max_tokens - choice.generated, positions)
        # More than 2: the mark that opens it, a token of it, one of the answer.
        return self.plan.may_think and self.plan.max_thinking_tokens > choice.stream.thought_tokens and tokens > 2

    def is_repeating(self, choice: Choice) -> bool:
        """Is its thought going in circles? Checked every REPETITION_INTERVAL tokens."""
        checked = choice.checked_for_repetition
        if not self.plan.detect_loops or not choice.stream.thinking or \
                len(choice.thought_ids) < checked + REPETITION_INTERVAL:
            return False
        choice.checked_for_repetition = len(choice.thought_ids)
        return is_repetitive(choice.thought_ids)
