"""What a model makes of traces: the rendered text, the tokens that are learned, lengths, what its template does not show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spoutnik.text.chat_template import TemplateRefusal
from spoutnik.text.thought_format import thought_format
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.data.conversations import context_of
from spoutnik.train.sft import trace_document
from spoutnik.train.traces import TraceReport, Traces

_PERCENTILES = {"median": 50, "p90": 90, "p99": 99, "longest": 100}


@dataclass(frozen=True)
class Rendered:
    """A trace as it is trained on. read: the text up to the reply; learned: the reply with its marks and its end. Their lengths
    in tokens. fits: whether it can be learned: the model has positions enough, its template takes it, and it spells none of the
    model's marks of thought (`spells_marks`). refused: what the template says against it, or ""."""

    thought: str
    answer: str
    read: str
    learned: str
    read_tokens: int
    learned_tokens: int
    fits: bool
    refused: str = ""
    spells_marks: bool = False


def render_trace(row: dict, tokenizer: Tokenizer, positions: int) -> Rendered:
    spells_marks = tokenizer.marks.spelled_in(row["thought"], row["answer"])
    try:
        document = trace_document(row, tokenizer)
    except TemplateRefusal as refusal:
        return Rendered(row["thought"], row["answer"], "", "", 0, 0, False, str(refusal), spells_marks)
    texts = [tokenizer.decode(list(ids), keep_special=True)
             for ids in (document.ids[:document.loss_from], document.ids[document.loss_from:])]
    return Rendered(row["thought"], row["answer"], *texts, document.loss_from, document.predicted,
                    len(document.ids) <= positions and not spells_marks, "", spells_marks)


def render_all(traces: Traces, tokenizer: Tokenizer, positions: int) -> list[Rendered]:
    """Every trace; completes the report by what cannot be learned."""
    rendered = [render_trace(row, tokenizer, positions) for row in traces.rows]
    for each in rendered:
        count_unused([each], traces.report)
    return rendered


def count_unused(together: Sequence[Rendered], report: TraceReport) -> None:
    """Completes the report by traces that are only used together, as `sft.Fitting` does, if one of them cannot be learned."""
    if all(each.fits for each in together):
        return
    report.used -= 1
    if any(each.spells_marks for each in together):
        report.marks += 1
    elif any(each.refused for each in together):
        report.refused += 1
    else:
        report.too_long += 1


def length_table(rendered: Sequence[Rendered]) -> dict[str, dict[str, int]]:
    """Percentiles of tokens: of whole traces and of what is learned of them. Those that the template refuses have none."""
    taken = [each for each in rendered if not each.refused]
    if not taken:
        return {}
    columns = {"tokens": [each.read_tokens + each.learned_tokens for each in taken],
               "learned": [each.learned_tokens for each in taken]}
    return {name: {label: int(np.percentile(values, percentile, method="higher"))
                   for label, percentile in _PERCENTILES.items()} for name, values in columns.items()}


def repeated_contexts(rows: Sequence[Mapping]) -> int:
    """How many traces have the whole context of an earlier one, with another reply."""
    return len(rows) - len({str((row.get("tools"), context_of(row))) for row in rows})


def template_notes(rows: Sequence[Mapping], tokenizer: Tokenizer) -> list[str]:
    """What a model's chat template does not show of these traces, found by rendering the first one of each kind."""
    notes = []
    thoughts, tools, systems, earlier = (
        [row for row in rows if test(row)] for test in (
            lambda row: row["thought"].strip(), lambda row: row.get("tools"),
            lambda row: context_of(row)[0]["role"] == "system", _earlier_thought))
    if thoughts and thought_format(tokenizer).opened_by == "nobody":
        notes.append("the model's chat template knows no thoughts: it learns to write <think> and </think> as plain text.")
    if tools and _render(tools[0], tokenizer) == _render(tools[0] | {"tools": None}, tokenizer):
        notes.append(f"the chat template shows no tools: the model will not see those of {_traces(tools)}.")
    if systems and context_of(systems[0])[0]["content"].strip() not in _render(systems[0], tokenizer, True):
        notes.append(f"the chat template shows no system text: the model will not see that of {_traces(systems)}.")
    if earlier and _earlier_thought(earlier[0]) not in _render(earlier[0], tokenizer, True):
        notes.append(f"the chat template leaves out the thoughts of earlier turns, as in chat: those of {_traces(earlier)} are "
                     "not seen. With learn: all each is learned where it is the reply.")
    return notes


def _traces(rows: Sequence[Mapping]) -> str:
    return f"{len(rows):,} trace{'s' if len(rows) > 1 else ''}"


def _earlier_thought(row: Mapping) -> str:
    """The first thought before the reply; "" where there is none."""
    return next((message["reasoning_content"] for message in context_of(row) if message.get("reasoning_content")), "")


def _render(row: Mapping, tokenizer: Tokenizer, shown_if_refused: bool = False) -> str:
    """The text before the reply. A conversation that the template refuses is told elsewhere, and no reason for a note."""
    try:
        return tokenizer.render(context_of(row), tools=row.get("tools"), variables=thought_format(tokenizer).variables)
    except TemplateRefusal:
        if not shown_if_refused:
            return str(row.get("tools"))
        return f"{context_of(row)[0]['content']} {_earlier_thought(row)}"
