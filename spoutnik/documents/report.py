"""The report of `spoutnik data make`: what was read, asked, kept and dropped, and why."""

from collections import Counter
from dataclasses import asdict, dataclass, field

from spoutnik.documents.candidates import REASONS, Reason
from spoutnik.documents.wording import Candidate

_EXAMPLES = 3  # of each reason


@dataclass
class MakeReport:
    """documents: suffix -> how many. other_files: the same of files of folders that are no documents. without_text: names.
    passages: asked about. too_short, repeated: passages that were not, and beyond_limit: neither, for --limit. replies: to the
    request for questions, of them nothing_to_ask: that say there is nothing, unreadable: in no form that is read, refused: by
    the endpoint, for what is in the request, or too long for the model, cut: at the limit of tokens. questions: that were read.
    dropped: reason -> how many. kept and held_out: rows. verifiers: how many rows of each. opinion: kept for the teacher's own
    yes, since no program could compare the answers; without_probability: its yes without a probability. examples: of what was
    dropped, by reason."""

    documents: dict[str, int] = field(default_factory=dict)
    other_files: dict[str, int] = field(default_factory=dict)
    without_text: list[str] = field(default_factory=list)
    passages: int = 0
    too_short: int = 0
    repeated: int = 0
    beyond_limit: int = 0
    replies: int = 0
    nothing_to_ask: int = 0
    unreadable: int = 0
    refused: int = 0
    cut: int = 0
    questions: int = 0
    dropped: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    kept: int = 0
    held_out: int = 0
    verifiers: dict[str, int] = field(default_factory=dict)
    opinion: int = 0
    without_probability: int = 0
    examples: dict[str, list[dict]] = field(default_factory=dict)

    def drop(self, reason: Reason, candidate: Candidate, place: str, given: str = "") -> None:
        """given: what the teacher answered instead."""
        self.dropped[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < _EXAMPLES:
            shown.append({"place": place, **asdict(candidate)} | ({"given": given} if given else {}))

    def as_dict(self) -> dict:
        return asdict(self)

    def sentences(self) -> list[str]:
        """For people."""
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in self.documents.items())
        lines = [f"{sum(self.documents.values()):,} documents ({kinds}): {self.passages:,} passages asked about"
                 + _listed((self.too_short, "too short"), (self.repeated, "that repeat earlier ones"),
                           (self.beyond_limit, "beyond the limit"), before="; left out ")]
        if self.other_files:
            lines.append("Not read, since they are no documents of a known kind: "
                         + ", ".join(f"{count:,} {suffix}" for suffix, count in self.other_files.items()))
        if self.without_text:
            lines.append(f"Without any text, as scans are: {', '.join(self.without_text[:5])}"
                         f"{' ...' if len(self.without_text) > 5 else ''}. Text recognition (OCR) would give them one.")
        lines.append(f"{self.replies:,} replies: {self.questions:,} questions" + _listed(
            (self.nothing_to_ask, "that find nothing to ask"), (self.unreadable, "in no form that can be read"),
            (self.refused, "refused"), (self.cut, "cut at the limit of tokens"), before="; of the replies "))
        lines += [f"dropped {count:,}: {REASONS[reason]}" for reason, count in self.dropped.items() if count]
        share = f" ({self.kept / self.questions:.0%} of the questions)" if self.questions else ""
        kinds = ", ".join(f"{count:,} {name}" for name, count in self.verifiers.items())
        verifiers = f"; verifiers: {kinds}" if kinds else ""
        lines.append(f"kept {self.kept:,}{share}, {self.held_out:,} of them held out{verifiers}")
        return lines


def _listed(*counts: tuple[int, str], before: str) -> str:
    named = [f"{count:,} {what}" for count, what in counts if count]
    return before + ", ".join(named) if named else ""


def verifier_counts(names: list[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
