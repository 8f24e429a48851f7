"""Traces of fine-tuning, and what became of them.

A trace is {"prompt", "thought", "answer"} and whatever says where it came from; "history", where there is one, holds earlier
turns as [question, answer]. Where more stands before the reply (a system text, tool calls), "messages" holds all of it, and
"tools" what can be called. `data` reads them from users' files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

KEYS = ("prompt", "thought", "answer")
LARGE_SHARE = 0.1  # of a source's traces: who loses more than that should know


def _younger(default: object = 0) -> object:
    """What older manifests do not have, and others only where it is not this."""
    return field(default=default, metadata={"younger": True})


def replies_of(row: Mapping) -> list[Mapping]:
    """Of a pair both replies, the better one first; else the trace itself."""
    return [row["chosen"], row["rejected"]] if "chosen" in row and "answer" not in row else [row]


@dataclass
class TraceReport:
    """What became of one source's traces: read = used + all that was left out, each for the first reason that holds.

    too_long: more tokens than the model has positions. empty: no prompt or no answer. duplicate: the same as an earlier one.
    marks: <think> or </think> within the thought or the answer. unwrapped: used, and freed of marks around the thought.
    near_duplicate: nearly the same as an earlier one. contaminated: with a benchmark's problem. contaminated_used: the same,
    and used: the recipe only warns. incorrect: not known to be right. no_reply: a conversation in which the assistant says
    nothing. tool_call: the reply only calls tools. refused: by the model's chat template. held_out: kept from training, to
    measure what was learned.

    Of preferences, whose unit is a pair or a reply: equal: both replies are the same. differing: they answer different
    conversations. tie: neither is better. no_opinion: taken back, or a conversation without one. replaced: by a later opinion
    on the same answer. alone: a good reply without a bad one to the same conversation, or the reverse.
    """

    source: str
    read: int = 0
    used: int = 0
    too_long: int = 0
    empty: int = 0
    duplicate: int = 0
    marks: int = 0
    unwrapped: int = 0
    near_duplicate: int = 0
    contaminated: int = 0
    contaminated_used: int = 0
    incorrect: int = _younger()
    no_reply: int = _younger()
    tool_call: int = _younger()
    refused: int = _younger()
    held_out: int = _younger()
    equal: int = _younger()
    differing: int = _younger()
    tie: int = _younger()
    no_opinion: int = _younger()
    replaced: int = _younger()
    alone: int = _younger()
    unit: str = _younger("traces")

    @property
    def dropped(self) -> int:
        return self.read - self.used - self.held_out

    @property
    def is_large(self) -> bool:
        """Whether much is lost that should not be: of generations that were graded, many are wrong, and people call a tie."""
        meant = self.incorrect + self.tie + self.no_opinion + self.replaced
        return self.dropped - meant > LARGE_SHARE * self.read

    def sentence(self, positions: int) -> str:
        """For people, with the remedy where much is lost."""
        text = self.counts()
        if not self.is_large:
            return text
        if 2 * self.alone > self.dropped:
            return f"{text}. A stage of kind kto learns from replies without a counterpart as well."
        remedy = (f"Shorten them to {positions:,} tokens, or widen the model's context." if 2 * self.too_long > self.dropped
                  else "Mend the source.")
        return f"Warning: {text}. {100 * self.dropped / self.read:.0f} % of them teach nothing. {remedy}"

    def counts(self) -> str:
        """What became of them, for people."""
        text = f"{self.source}: {self.read:,} {self.unit} read, {self.used:,} used"
        text += "".join(f", {part}" for part in self.reasons())
        if self.held_out:
            text += f", {self.held_out:,} held out"
        return text + (f"; {self.unwrapped:,} freed of marks around their thoughts" if self.unwrapped else "")

    def note(self) -> str:
        """For the stage table: nothing where everything was used."""
        if not self.dropped:
            return ""
        return f"{self.dropped:,} of {self.read:,} {self.unit} of {self.source} left out ({', '.join(self.reasons())})"

    def reasons(self) -> list[str]:
        """What was dropped, and why."""
        named = (("too long", self.too_long), ("empty", self.empty), ("with marks of thought inside", self.marks),
                 ("not known to be right", self.incorrect), ("without a reply of the assistant", self.no_reply),
                 ("whose reply only calls tools", self.tool_call), ("refused by the chat template", self.refused),
                 ("of two equal replies", self.equal), ("whose replies answer different conversations", self.differing),
                 ("ties", self.tie), ("without an opinion", self.no_opinion),
                 ("replaced by later opinions on the same answer", self.replaced),
                 ("replies without a counterpart", self.alone))
        reasons = [f"{count:,} {what}" for what, count in named if count]
        if self.duplicate:
            reasons.append(f"{self.duplicate:,} duplicate{'s' if self.duplicate > 1 else ''}")
        if self.near_duplicate:
            reasons.append(f"{self.near_duplicate:,} near duplicate{'s' if self.near_duplicate > 1 else ''}")
        if self.contaminated:
            reasons.append(f"{self.contaminated:,} with a benchmark's problem")
        return reasons


@dataclass
class Traces:
    """The usable traces of one source, and its report, which `sft.fit` completes: it needs a tokenizer. description: of a
    user's files, the shape that their rows were recognized to have."""

    rows: list[dict]
    report: TraceReport
    description: str = ""

    @staticmethod
    def of(source: str, rows: Sequence[dict]) -> "Traces":
        """Traces written by this package, which are what they should be."""
        return Traces(list(rows), TraceReport(source, len(rows), len(rows)))


def reports_of(sources: Sequence[Traces]) -> list[dict]:
    """For the manifest."""
    younger = {each.name: each.default for each in fields(TraceReport) if each.metadata.get("younger")}
    return [{name: value for name, value in asdict(source.report).items() if name not in younger or value != younger[name]}
            for source in sources]


def notes_of(data: Sequence[dict]) -> str:
    """For the stage table, from a manifest's `data`."""
    return "; ".join(note for report in data if (note := TraceReport(**report).note()))
