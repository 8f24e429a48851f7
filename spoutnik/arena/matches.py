"""Blind comparisons of two models: which two answer, and the votes on them. The page and the terminal share both."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.arena.ratings import OUTCOMES, Outcome, Vote
from spoutnik.errors import UserError
from spoutnik.store.history import History

_WINNER = {"tie": "tie", "bad": "neither"}  # as the history stores it


@dataclass(frozen=True)
class Match:
    """Two models: a is shown left, b right. Their names are shown after the vote."""

    a: str
    b: str

    @staticmethod
    def draw(models: Sequence[str], chosen: Sequence[str] = (), rng: random.Random | None = None) -> "Match":
        """Two different models, `chosen` (at most two) among them, on random sides."""
        rng = rng or random.SystemRandom()
        pair = list(dict.fromkeys(chosen))
        others = [name for name in models if name not in pair]
        if len(others) < 2 - len(pair):
            raise UserError(f"the arena compares two models, and there is only {', '.join(models) or 'none'}. Give it two, "
                            "or a run of which several stages are models.")
        pair += rng.sample(others, 2 - len(pair))
        rng.shuffle(pair)
        return Match(*pair)


class VoteStore:
    """The votes: in the history where there is one, else in memory."""

    def __init__(self, history: History | None):
        self.history, self._in_memory = history, []

    def record(self, match: Match, outcome: Outcome, question: str, answers: tuple[str, str]) -> None:
        if outcome not in OUTCOMES:
            raise UserError(f"vote = {outcome!r}: must be one of {', '.join(OUTCOMES)}.")
        if self.history is None:
            self._in_memory.append(Vote(match.a, match.b, outcome))
            return
        winner = {"a": match.a, "b": match.b}.get(outcome) or _WINNER[outcome]
        self.history.add_vote([match.a, match.b], winner, {"outcome": outcome, "question": question, "answers": list(answers)})

    def votes(self) -> list[Vote]:
        if self.history is None:
            return list(self._in_memory)
        return [Vote(*vote.models, vote.extras["outcome"]) for vote in self.history.votes()]  # a model may be called "tie"
