"""Replies on their way to a terminal or a pipe: Markdown, formulas, what goes where."""

import io
import re

import pytest
from rich.console import Console

from spoutnik.commands.reply_printer import ReplyPrinter
from spoutnik.terminal_markdown import keep_formulas, split_blocks

ANSWER = """\
The roots of \\(x^2 - 5x + 6 = 0\\) are $x_1 = 2$ and $x_2 = 3$, for *both* are **real**:

\\[
x_{1,2} = \\frac{-b \\pm \\sqrt{b^2 - 4ac}}{2a}
\\]

1. first <b>one</b>
2. second

```python
price = "$5"  # not \\(a formula\\)
```

| a_1 | b |
|---|---|
| 3 | 4 |

It costs $5, not $6.
A new line."""


def terminal(columns: int = 60) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=columns, height=24, color_system="standard", _environ={})


def plain(screen: Console) -> str:
    """What is left on the screen: without styles, and without the lines that were taken back."""
    lines = [""]
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\n)", screen.file.getvalue()):
        if part == "\n":
            lines.append("")
        elif part.endswith("A") and part.startswith("\x1b["):
            lines = lines[:-1]
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif not part.startswith("\x1b["):
            lines[-1] = part.rpartition("\r")[2] if "\r" in part else lines[-1] + part
    return "\n".join(line.rstrip() for line in lines)


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_an_answer_on_a_terminal_is_markdown_with_its_formulas_tags_and_lines_kept(columns):
    screen = terminal(columns)
    printer = ReplyPrinter(screen, screen)
    printer.show("Let me see.", "")
    for place in range(0, len(ANSWER), 7):
        printer.show("", ANSWER[place:place + 7])
    printer.close(["a note"])
    shown = plain(screen)
    flat = " ".join(shown.split())
    assert all(len(line) <= columns for line in shown.splitlines())
    assert flat.count("Let me see.") == 1 and shown.rstrip().endswith("(a note)")
    for part in (r"\(x^2 - 5x + 6 = 0\)", "$x_1 = 2$ and $x_2 = 3$", r"\frac{-b \pm \sqrt{b^2 - 4ac}}{2a}", "first <b>one</b>",
                 'price = "$5" # not \\(a formula\\)', "It costs $5, not $6."):
        assert flat.count(part) == 1, (part, shown)
    assert "**" not in shown and "```" not in shown and "|---" not in shown and re.search(r"^A new line\.$", shown, re.M)


def test_without_markdown_an_answer_is_as_it_was_written():
    screen = terminal(200)
    printer = ReplyPrinter(screen, screen, markdown=False)
    printer.show("", ANSWER)
    printer.close()
    assert "**real**" in plain(screen) and "```python" in plain(screen)


def test_into_a_pipe_goes_the_answer_alone_and_as_it_is():
    out, notes = Console(file=io.StringIO(), width=60), Console(file=io.StringIO(), width=60)
    printer = ReplyPrinter(out, notes)
    printer.show("Let me", "")
    printer.show(" see.", "")
    printer.show("", ANSWER)
    printer.close(["cut off"])
    assert out.file.getvalue() == ANSWER + "\n"
    assert notes.file.getvalue() == "<think>\nLet me see.\n</think>\n(cut off)\n"


def test_a_model_cannot_move_the_cursor():
    screen = terminal()
    printer = ReplyPrinter(screen, screen, markdown=False)
    printer.show("\x1b[2Jthought", "\x1b]0;title\x07answer\x9b1A")
    printer.close()
    assert not any(code in screen.file.getvalue() for code in ("\x1b[2J", "\x1b]", "\x9b", "\x07"))


def test_a_terminal_that_cannot_move_its_cursor_shows_the_source_and_marks_the_thought():
    screen = Console(file=io.StringIO(), force_terminal=True, width=60, _environ={"TERM": "dumb"})
    printer = ReplyPrinter(screen, screen)
    printer.show("Hm.", "")
    printer.show("", "**42**")
    printer.close()
    assert screen.file.getvalue() == "<think>\nHm.\n</think>\n**42**\n"


@pytest.mark.parametrize("text, whole", [
    ("one", ""), ("one\n\ntwo", "one\n\n"), ("1. a\n\n2. b", ""), ("```\na\n\nb", ""), ("# A\ntext", "# A\n"),
    ("$$\na\n\nb", ""), ("\\[\na\n\nb", ""), ("| a |\n|---|\n| 1 |\n\nend", "| a |\n|---|\n| 1 |\n\n"),
    ("a\u2028b\x0cc\n\nd", "a\u2028b\x0cc\n\n"), ("a\r\n\r\nb", "a\r\n\r\n")])
def test_only_blocks_that_are_whole_are_rendered(text, whole):
    assert split_blocks(text) == (whole, text.removeprefix(whole))


def test_code_is_no_formula():
    for text in ("`$a_1$`", "```\n$$x$$\n```", "It costs $5 and $6."):
        assert keep_formulas(text) == text


def test_a_note_breaks_between_words_and_leaves_paths_whole():
    screen, path = terminal(40), "/home/somebody/runs/nano/artifacts/all_scenarios_rl"
    ReplyPrinter(screen, screen).note(f"{path}. It was taught the problem families of its recipe.\nTry it.")
    lines = plain(screen).splitlines()
    assert lines[0] == f"{path}." and lines[-1] == "Try it." and all(len(line) <= 40 for line in lines[1:])


def test_a_thought_that_comes_in_pieces_breaks_between_its_words():
    screen, thought = terminal(30), "Let me see. The numbers are 3, 5 and 8; extraordinarily many ways are open to us.\nWell."
    printer = ReplyPrinter(screen, screen)
    for place in range(0, len(thought), 3):
        printer.show(thought[place:place + 3], "")
    printer.close()
    lines = plain(screen).splitlines()
    assert all(len(line) <= 30 for line in lines) and " ".join(lines).split() == thought.split() and "Well." in lines
