"""`--help` for terminals of any width: below 80 columns an option's text stands under it, not in a narrow column beside it."""

import shutil
from collections.abc import Sequence

from typer.core import TyperCommand, TyperGroup

from spoutnik.commands.console import fill

_WIDEST, _NARROW, _LEAST = 80, 74, 24  # columns


class _Formatter(TyperGroup.context_class.formatter_class):
    def __init__(self, width: int | None = None, **options):
        columns = shutil.get_terminal_size().columns
        super().__init__(width=width or max(min(columns, _WIDEST) - 2, _LEAST), **options)

    def write_text(self, text: str) -> None:
        """Each paragraph, broken between words and not at the hyphens in them."""
        indent = " " * self.current_indent
        paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
        self.write("\n\n".join(fill(paragraph, self.width, indent, indent) for paragraph in paragraphs) + "\n")

    def write_dl(self, rows: Sequence[tuple[str, str]], **options) -> None:
        """Names, with their texts beside them or, where that leaves too little, below."""
        indent = " " * self.current_indent
        column = 0 if self.width < _NARROW else min(max(len(name) for name, _ in rows), 30) + 2
        for name, text in rows:
            beside = f"{indent}{name:{column}}"
            below = " " * (self.current_indent + (column or 4))
            if column and len(name) <= column - 2:
                self.write(fill(text, self.width, beside, below) + "\n")
            else:
                self.write(f"{indent}{name}\n" + (fill(text, self.width, below, below) + "\n" if text else ""))


class _Context(TyperGroup.context_class):
    formatter_class = _Formatter


class Command(TyperCommand):
    context_class = _Context


class Group(TyperGroup):
    context_class = _Context

    def format_commands(self, ctx, formatter) -> None:
        """Each command with its first sentence, whole."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in commands])
