"""What an audit gives: the numbers of each attack, and the sentences that follow from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from spoutnik.tasks.exemptions import Exemption

_GOLDS = 0.95  # of a task's own answers must be right: a file may have a faulty line, no verifier may refuse its golds


@dataclass(frozen=True)
class Example:
    """An answer that was graded, shortened."""

    prompt: str
    gold: str
    answer: str
    grade: float

    def __str__(self) -> str:
        return f"{self.answer!r} is graded {self.grade:g} where {self.gold!r} is right"


@dataclass
class AttackResult:
    """What one attack reached.

    form: the best of its forms. problems: on which it was tried. mean: the form's mean grade over them. passed: those on which
    it got full marks.
    answers: that were graded, of all forms. raised, invalid: answers at which the verifier raised, or gave no number in [0, 1].
    error: the first of both. example: an answer of the best form that was paid, or at which the verifier raised. seconds: the
    longest verdict.
    """

    attack: str
    limit: float | None
    form: str = ""
    problems: int = 0
    mean: float = 0.0
    passed: int = 0
    answers: int = 0
    raised: int = 0
    invalid: int = 0
    error: str = ""
    seconds: float = 0.0
    example: Example | None = None


@dataclass
class Report:
    """The audit of one task.

    golds: own answers that were graded 1, of `answered` problems that have one; solved: the same of worked solutions.
    interrupted: a sentence where the audit did not come to its end. executed: the attack during which an answer was executed.
    """

    task: str
    problems: int = 0
    answered: int = 0
    golds: int = 0
    gold_example: Example | None = None
    solutions: int = 0
    solved: int = 0
    solved_example: Example | None = None
    attacks: list[AttackResult] = field(default_factory=list)
    executed: str = ""
    interrupted: str = ""
    exemptions: Mapping[str, Exemption] = field(default_factory=dict)

    @property
    def refusals(self) -> list[str]:
        """Sentences, each a reason not to train on this task; none where it passes."""
        sentences = [self.interrupted] if self.interrupted else []
        if self.executed:
            sentences.append(f"The verifier executes what it reads ({self.executed}).")
        sentences += self._wrong_golds()
        counted = [each for each in self.attacks if not self._is_exempt(each)]
        sentences += self._failures("raises", {each.attack: each.raised for each in counted if each.raised})
        sentences += self._failures("gives no grade", {each.attack: each.invalid for each in counted
                                                       if each.invalid and not each.raised})
        return sentences + [sentence for result in counted if (sentence := self._paid(result)) is not None]

    @property
    def exempted(self) -> list[str]:
        """What would be refused, were it not written down."""
        sentences = []
        for result in self.attacks:
            if self._is_exempt(result):
                sentence = self._paid(result)
                if result.raised:
                    sentence = f"{result.attack}: the verifier raises for {result.raised} of {result.answers} answers."
                sentences += [f"{sentence} Its reason: {self.exemptions[result.attack].reason}."] if sentence else []
        return sentences

    @property
    def notes(self) -> list[str]:
        """What is worth knowing and refuses nothing."""
        notes = []
        if self.golds < self.answered and not self._wrong_golds():
            notes.append(f"{self.answered - self.golds} of {self.answered} own answers are not graded 1: {self.gold_example}.")
        if not self.answered and not self.interrupted:
            notes.append("Its problems have no answers of their own: what is around them was not tried.")
        for result in self.attacks:
            if result.mean >= 0.05 and self._paid(result) is None:
                notes.append(f"{result.attack}: {result.form} is graded {result.mean:.2f} on average.")
        return notes

    @property
    def best_blind(self) -> AttackResult | None:
        """The attack that pays best without knowing the answer."""
        blind = [result for result in self.attacks if result.attack in BLIND]
        return max(blind, key=lambda result: result.mean, default=None)

    def as_json(self) -> dict:
        return asdict(self) | {"refusals": self.refusals, "exempted": self.exempted, "notes": self.notes}

    def _wrong_golds(self) -> list[str]:
        sentences = []
        for right, of, what, example in ((self.golds, self.answered, "own answers", self.gold_example),
                                         (self.solved, self.solutions, "worked solutions", self.solved_example)):
            if right < _GOLDS * of:
                sentences.append(f"Only {right} of {of} {what} are graded 1: {example}.")
        return sentences

    def _failures(self, verb: str, counts: dict[str, int]) -> list[str]:
        if not counts:
            return []
        total, names = sum(result.answers for result in self.attacks), ", ".join(counts)
        error = next(result.error for result in self.attacks if result.attack in counts)
        return [f"The verifier {verb} for {sum(counts.values())} of {total} answers ({names}), as {error}."]

    def _paid(self, result: AttackResult) -> str | None:
        if result.limit is None or result.mean < result.limit:
            return None
        return f"{result.attack}: {result.form} is graded {result.mean:.2f} on average ({result.passed} of {result.problems} " \
               f"problems), as {result.example}."

    def _is_exempt(self, result: AttackResult) -> bool:
        exemption = self.exemptions.get(result.attack)
        return exemption is not None and result.mean <= exemption.limit


BLIND = ("empty", "white space", "constants", "all usual answers", "echo", "numbers of the prompt", "other golds")


def report_from_json(value: dict) -> Report:
    """The report that `as_json` wrote."""
    known = {name: value[name] for name in Report.__dataclass_fields__}
    example = lambda each: None if each is None else Example(**each)  # noqa: E731
    return Report(**known | {
        "gold_example": example(known["gold_example"]), "solved_example": example(known["solved_example"]),
        "attacks": [AttackResult(**each | {"example": example(each["example"])}) for each in known["attacks"]],
        "exemptions": {name: Exemption(**each) for name, each in known["exemptions"].items()}})
