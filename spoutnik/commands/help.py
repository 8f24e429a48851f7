"""`--help` for terminals of any width: below 80 columns an option's text stands under it, not in a narrow column beside it."""

import shutil
from collections.abc import Sequence

from typer.core import TyperCommand, TyperGroup

_WIDEST, _NARROW, _LEAST = 80, 74, 24  # columns


class _Formatter(TyperGroup.context_class.formatter_class):
    def __init__(self, width: int | None = None, **options):
        columns = shutil.get_terminal_size().columns
        super().__init__(width=width or max(min(columns, _WIDEST) - 2, _LEAST), **options)

    def write_dl(self, rows: Sequence[tuple[str, str]], **options) -> None:
        if self.width >= _NARROW:
            super().write_dl(rows, **options)
            return
        for name, text in rows:
            self.write(f"{'':{self.current_indent}}{name}\n")
            if text:
                self.indent()
                self.indent()
                self.write_text(text)
                self.dedent()
                self.dedent()


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
