"""What a model makes of preferences: the text that both replies follow, the tokens that are compared, and what is odd."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from spoutnik.errors import UserError
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.data.conversations import context_of
from spoutnik.train.data.loading import LoadedData, identity_of
from spoutnik.train.data.preferences import as_pairs, as_replies, is_pair, reply_rows
from spoutnik.train.data.preview import Rendered, count_unused, length_table, render_trace
from spoutnik.train.preference_losses import balanced_weights
from spoutnik.train.traces import Traces, replies_of


@dataclass(frozen=True)
class RenderedPreference:
    """A pair or a reply as it is compared: name ("chosen", "rejected", "good", "bad") -> the reply with what is read before
    it."""

    replies: dict[str, Rendered]

    @property
    def fits(self) -> bool:
        return all(each.fits for each in self.replies.values())

    @property
    def refused(self) -> str:
        return next((each.refused for each in self.replies.values() if each.refused), "")


def names_of(row: dict) -> tuple[str, ...]:
    """What the replies of a row are called."""
    return ("chosen", "rejected") if is_pair(row) else ("good" if row["label"] else "bad",)


def render_preferences(traces: Traces, tokenizer: Tokenizer, positions: int) -> list[RenderedPreference]:
    """Every row; completes the report by what cannot be learned."""
    rendered = [RenderedPreference({name: render_trace(reply, tokenizer, positions)
                                    for name, reply in zip(names_of(row), reply_rows([row]))}) for row in traces.rows]
    for each in rendered:
        count_unused(list(each.replies.values()), traces.report)
    return rendered


def preference_lengths(rendered: Sequence[RenderedPreference]) -> dict[str, dict[str, int]]:
    """Percentiles of tokens: of whole documents, and of what is compared in replies of each kind."""
    every = [(name, reply) for each in rendered for name, reply in each.replies.items()]
    tables = {"tokens": length_table([reply for _, reply in every]).get("tokens")}
    for name in ("chosen", "rejected", "good", "bad"):
        tables[name] = length_table([reply for other, reply in every if other == name]).get("learned")
    return {name: table for name, table in tables.items() if table}


def preference_notes(loaded: LoadedData) -> list[str]:
    """What the rows are for each kind of stage, and what pairs may teach that nobody meant."""
    replies = as_replies(loaded)
    good = sum(row["label"] for row in replies.rows)
    bad = len(replies.rows) - good
    notes = []
    try:
        pairs = as_pairs(loaded)
    except UserError:
        notes.append("for kind dpo: no pairs, since no conversation has a good and a bad reply.")
    else:
        notes += [f"for kind dpo: {len(pairs.rows):,} pairs.", *_pair_notes(pairs.rows)]
    if good and bad:
        notes.append(f"for kind kto: {balanced_weights(good, bad).sentence()}.")
    else:
        notes.append(f"for kind kto: {good:,} good replies and {bad:,} bad ones, and it needs both.")
    return notes


def _pair_notes(pairs: Sequence[dict]) -> list[str]:
    lengths = [[len(reply["thought"]) + len(reply["answer"]) for reply in replies_of(pair)] for pair in pairs]
    longer = sum(chosen > rejected for chosen, rejected in lengths)
    middle = [median(column) for column in zip(*lengths)]
    notes = [f"the chosen reply is the longer one in {longer:,} of {len(pairs):,} pairs (median {middle[0]:.0f} characters "
             f"against {middle[1]:.0f}): where it mostly is, or mostly is not, length is what is learned first."]
    if reverse := contradictions(pairs):
        notes.append(f"pairs of which another one says the reverse: {reverse:,}.")
    one_thought = sum(len({bool(reply["thought"].strip()) for reply in replies_of(pair)}) == 2 for pair in pairs)
    if one_thought:
        notes.append(f"pairs of which one reply alone has a thought: {one_thought:,}. They teach to think, or not to.")
    return notes


def contradictions(pairs: Sequence[dict]) -> int:
    """How many pairs have a twin with the replies exchanged."""
    known = {identity_of(pair) for pair in pairs}
    return sum(identity_of(pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}) in known for pair in pairs)


def as_shown(row: dict) -> dict:
    """A row without a model: what stands before the replies, and these."""
    before = {"messages": context_of(row)} if "messages" in row else {"prompt": row["prompt"]}
    return before | ({"tools": row["tools"]} if row.get("tools") else {}) | dict(zip(names_of(row), (
        {key: reply[key] for key in ("thought", "answer")} for reply in replies_of(row))))
