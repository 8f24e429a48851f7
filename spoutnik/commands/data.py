"""`spoutnik data`: what becomes of a user's training data; `spoutnik data make`: some from documents."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json, print_pairs, say
from spoutnik.commands.data_make import make
from spoutnik.commands.help import Command, Group
from spoutnik.commands.options import Columns, Json, Learn, Stage, column_names

if TYPE_CHECKING:
    from rich.console import Console

    from spoutnik.text.tokenizer import Tokenizer
    from spoutnik.train.data.preference_preview import RenderedPreference
    from spoutnik.train.data.preview import Rendered


class _FileOrCommand(Group):
    """`data FILE ...` shows a file, `data make DOCS ...` makes one: a first argument that is no command is a file."""

    def parse_args(self, ctx, args):
        return super().parse_args(ctx, args if args and args[0] in self.commands else [_SHOW, *args])

    def format_commands(self, ctx, formatter) -> None:
        """None: its help is that of showing a file."""


class _ShowContext(Command.context_class):
    @property
    def command_path(self) -> str:
        """Without the name of the command, which nobody types."""
        return self.parent.command_path


class _Show(Command):
    context_class = _ShowContext


_SHOW = "show"
data = typer.Typer(cls=_FileOrCommand, help="Look at training data of your own, or make some from documents (data make).")
data.command("make", cls=Command, epilog="Example: spoutnik data make manuals/ --teacher http://127.0.0.1:8000/v1 --model "
             "qwen3-32b --out questions.jsonl")(make)


@data.command(_SHOW, cls=_Show, epilog="Example: spoutnik data my.jsonl --model runs/nano --columns prompt=q,answer=reply. "
              "Rows are made from documents by: spoutnik data make DOCS --teacher MODEL")
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, JSON, CSV, TSV or Parquet, also gzipped; a folder "
                                         "of such, a pattern in quotes ('data/*.jsonl'), or a data set of the hub "
                                         "(hub:openai/gsm8k:main:train).")],
    model: Annotated[Optional[str], typer.Option(help="Whose chat template renders the rows, and whose tokens and positions "
                                                 "count: a folder, a run, a name on the hub.")] = None,
    stage: Stage = None,
    columns: Columns = None,
    learn: Learn = "last",
    held_out_share: Annotated[float, typer.Option(min=0.0, help="The share that is never trained on, by the hash of the first "
                                                  "question.")] = 0.0,
    rows: Annotated[int, typer.Option(min=0, help="How many traces to show.")] = 3,
    json_: Json = False,
):
    """Look at training data of your own: its shape, what a model sees and learns of it, what is dropped and why."""
    from spoutnik.errors import UserError
    from spoutnik.hub_data import is_hub_name, parse_hub_name, pinned
    from spoutnik.train.data.loading import load_data

    if learn not in ("last", "all"):
        raise UserError(f"--learn {learn}: must be last or all.")
    if held_out_share >= 1:
        raise UserError(f"--held-out-share {held_out_share:g}: must be below 1.")
    if stage is not None and model is None:
        raise UserError("--stage: is of a model. Name its run with --model.")
    loaded = load_data(file, column_names(columns), learn)
    facts = (_preferences if loaded.preferences else _traces)(loaded, model, stage, held_out_share, rows)
    if is_hub_name(file) and not (named := parse_hub_name(file)).is_pinned:
        facts["notes"].append(f"a recipe takes these rows by their commit, which is now {pinned(named)}")
    if json_:
        print_json(facts)
    else:
        _print(facts, console())


def _preferences(loaded, model: str | None, stage: str | None, held_out_share: float, rows: int) -> dict:
    """All that is shown of pairs and of replies that are good or bad. With a model, its tokens and positions count."""
    from spoutnik.train.data.preference_preview import as_shown, preference_lengths, preference_notes, render_preferences
    from spoutnik.train.data.preferences import reply_rows
    from spoutnik.train.data.preview import template_notes
    from spoutnik.train.data.split import hold_out
    from spoutnik.train.traces import reports_of

    facts = {"shape": loaded.description, "notes": preference_notes(loaded)}
    if held_out_share:
        loaded, _ = hold_out(loaded, held_out_share)
    if model is None:
        shown = [as_shown(row) for row in loaded.rows[:rows]]
        facts["notes"].append("with --model its chat template shows what the model reads, what is compared, and what is too "
                              "long.")
    else:
        tokenizer, positions = _model(model, stage)
        rendered = render_preferences(loaded, tokenizer, positions)
        shown = [{name: vars(reply) for name, reply in each.replies.items()} for each in rendered[:rows]]
        facts |= {"model": model, "positions": positions, "lengths": preference_lengths(rendered)}
        facts["notes"] += template_notes(reply_rows(loaded.rows), tokenizer) + _refusals(rendered)
    return facts | {"report": reports_of([loaded])[0], "summary": loaded.report.counts(), "rows": shown}


def _traces(loaded, model: str | None, stage: str | None, held_out_share: float, rows: int) -> dict:
    """All that is shown. With a model, its tokens and positions count."""
    from spoutnik.train.data.preview import length_table, render_all, repeated_contexts, template_notes
    from spoutnik.train.data.split import has_held_out, hold_out
    from spoutnik.train.traces import reports_of

    facts = {"shape": loaded.description, "notes": []}
    if repeated := repeated_contexts(loaded.rows):
        facts["notes"].append(f"traces that answer what an earlier one answers, with other words: {repeated:,}.")
    if held_out_share or has_held_out(loaded):
        loaded, _ = hold_out(loaded, held_out_share)
    if model is None:
        shown = [{key: row[key] for key in ("prompt", "messages", "tools", "thought", "answer") if key in row}
                 for row in loaded.rows[:rows]]
        facts["notes"].append("with --model its chat template shows what the model reads and learns, and what is too long.")
    else:
        tokenizer, positions = _model(model, stage)
        rendered = render_all(loaded, tokenizer, positions)
        shown = [vars(each) for each in rendered[:rows]]
        facts |= {"model": model, "positions": positions, "lengths": length_table(rendered)}
        facts["notes"] += template_notes(loaded.rows, tokenizer) + _refusals(rendered)
    return facts | {"report": reports_of([loaded])[0], "summary": loaded.report.counts(), "rows": shown}


def _model(name: str, stage: str | None) -> "tuple[Tokenizer, int]":
    from spoutnik.loading import load_tokenizer
    from spoutnik.locate import locate
    from spoutnik.model.config import ModelConfig

    folder = locate(name, stage, weights=False)
    return load_tokenizer(folder), ModelConfig.load(folder).max_position_embeddings


def _refusals(rendered: "list[Rendered | RenderedPreference]") -> list[str]:
    return list(dict.fromkeys(each.refused for each in rendered if each.refused))[:3]


def _print(facts: dict, terminal: "Console") -> None:
    say(facts["shape"])
    say(facts["summary"])
    unit = "reply and what is read before it" if "opinions" == facts["report"].get("unit") else "trace"
    for name, lengths in facts.get("lengths", {}).items():
        what = {"tokens": f"tokens of a {unit}", "learned": "of them learned"}.get(name, f"of them compared, {name}")
        limit = f" (the model has {facts['positions']:,} positions)" if name == "tokens" else ""
        say(f"{what}: " + ", ".join(f"{label} {value:,}" for label, value in lengths.items()) + limit)
    for note in facts["notes"]:
        say(f"Note: {note}")
    for number, row in enumerate(facts["rows"], 1):
        replies = [(name, reply) for name, reply in row.items() if isinstance(reply, dict) and "read" in reply]
        say(f"\n--- {facts['report'].get('unit', 'traces').rstrip('s')} {number}")
        if not replies:
            _print_row(row, terminal)
        for place, (name, reply) in enumerate(replies):
            _print_row(reply, terminal, name, place == 0)


def _print_row(row: dict, terminal: "Console", learned: str = "learned", with_context: bool = True) -> None:
    """What is read and what is learned apart, by color on a terminal and by labels everywhere. learned: the latter's label;
    with_context: whether what is read is shown."""
    from rich.text import Text

    if "read" not in row:
        print_pairs(terminal, [(key, value if isinstance(value, str) else _plain(value)) for key, value in row.items()])
        return
    if row["refused"]:
        say(row["refused"], terminal)
        return
    why = "" if row["fits"] else ": with marks of thought inside, dropped" if row["spells_marks"] else ": too long, dropped"
    verb = "learned" if learned == "learned" else "compared"
    tokens = f"{row['read_tokens']:,} tokens read, {row['learned_tokens']:,} {verb}"
    color = "red" if learned in ("rejected", "bad") else "green"
    for label, style, text in (("read", "dim", row["read"]), (learned, color, row["learned"]))[0 if with_context else 1:]:
        say(f"[{label}]", terminal)
        terminal.print(Text(text, style), soft_wrap=True)
    print_pairs(terminal, [("thought", row["thought"] or "none"), ("answer", row["answer"]),
                           ("length", tokens + why)])


def _plain(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
