"""The arena in the terminal: two models answer blindly side by side, and the user votes for the better answer."""

import asyncio
import random
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from spoutnik.arena.matches import Match, VoteStore
from spoutnik.arena.ratings import Outcome, rate
from spoutnik.errors import UserError
from spoutnik.generation.delta import GenerationWarning
from spoutnik.generation.options import EFFORTS
from spoutnik.generation.service import GenerationService
from spoutnik.generation.session import ChatOptions, ChatTurn
from spoutnik.tables import print_table
from spoutnik.terminal_markdown import AnswerMarkdown
from spoutnik.units import duration

_SIDE_BY_SIDE = 70  # columns that two answers need

KEYS: dict[str, Outcome] = {"a": "a", "b": "b", "t": "tie", "n": "bad"}
VOTE = "[bold]a[/] is better, [bold]b[/] is better, a [bold]t[/]ie, [bold]n[/]either is good (Enter: no vote) "


async def compare(service: GenerationService, votes: VoteStore, console: Console, effort: str = "high",
                  rng: random.Random | None = None) -> None:
    """Asks for a question, shows two answers, asks for a vote and names the models; repeats until an empty question."""
    if effort not in EFFORTS:
        raise UserError(f"--effort {effort}: unknown. Choose {', '.join(EFFORTS)}.")
    models = list(service.models)
    Match.draw(models, rng=rng)  # raises now where there are not two
    console.print(Text(f"{len(models)} models. Ask; two of them answer, and you say which answer is better. Empty line "
                       "or Ctrl-D to leave.", "dim"))
    while question := _read(console, "[bold]> [/]"):
        match = Match.draw(models, rng=rng)
        turns = [ChatTurn(service, [{"role": "user", "content": question}], ChatOptions(model, effort))
                 for model in (match.a, match.b)]
        try:
            await _show(turns, console)
        finally:
            for turn in turns:
                turn.stop()
        if all(turn.message.content for turn in turns):
            outcome = _ask_vote(console)
            if outcome is not None:
                votes.record(match, outcome, question, (turns[0].message.content, turns[1].message.content))
        console.print(Text(f"A was {match.a}, B was {match.b}.", "dim"))


async def _show(turns: Sequence[ChatTurn], console: Console) -> None:
    """Both answers as they grow, where the terminal can redraw, and once they are complete."""
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            while any(turn.phase != "over" for turn in turns):
                live.update(side_by_side(turns, console.width), refresh=True)
                await asyncio.sleep(0.1)
    for turn in turns:
        await turn.wait()
    console.print(side_by_side(turns, console.width))


def side_by_side(turns: Sequence[ChatTurn], width: int) -> RenderableType:
    """Both answers; one above the other where the console is narrow."""
    panels = [Panel(_answer(turn), title=name, title_align="left") for turn, name in zip(turns, "AB")]
    if width < _SIDE_BY_SIDE:
        return Group(*panels)
    grid = Table.grid(*(Column(ratio=1) for _ in turns), expand=True, padding=(0, 1))
    grid.add_row(*panels)
    return grid


def _answer(turn: ChatTurn) -> RenderableType:
    extras = turn.message.extras
    spent = f"{duration(turn.thought_seconds)}, {extras['thought_tokens']} tokens"
    status = {"waiting": "waiting for the model", "thinking": f"thinking: {spent}"}.get(turn.phase, f"thought for {spent}")
    parts: list[RenderableType] = [Text(status, "dim")]
    if turn.phase == "thinking":
        parts.append(Text(turn.message.thought[-400:], "dim italic"))
    parts.append(AnswerMarkdown(turn.message.content))
    parts += [Text(str(GenerationWarning(**warning)), "dim") for warning in extras["warnings"]]
    return Group(*parts, *([Text(extras["error"], "red")] if "error" in extras else []))


def _read(console: Console, prompt: str) -> str:
    try:
        return console.input(prompt).strip()
    except EOFError:
        console.print()
        return ""


def _ask_vote(console: Console) -> Outcome | None:
    while key := _read(console, VOTE).lower():
        if key in KEYS:
            return KEYS[key]
    return None


def show_ratings(votes: VoteStore, console: Console) -> None:
    rows = rate(votes.votes())
    if not rows:
        console.print("There are no votes yet. `spoutnik arena RUN` and the page's arena collect them.")
        return
    table = Table("model", box=None, pad_edge=False)
    for column in ("rating", "95 % interval", "votes", "wins", "losses"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row.model, f"{row.rating:.0f}", f"{row.low:.0f} to {row.high:.0f}",
                      *map(str, (row.games, row.wins, row.losses)))
    print_table(console, table)
    console.print(Text("Bradley and Terry's model: 400 points more are odds of ten to one. One drawn game is assumed between "
                       "every two models.", "dim"))
