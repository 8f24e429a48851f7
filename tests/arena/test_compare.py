"""The arena in the terminal, and its command."""

import asyncio
import json
import re
from io import StringIO
from random import Random

import pytest
from rich.console import Console
from scripted import scripted_service
from typer.testing import CliRunner

from spoutnik.arena import compare as arena
from spoutnik.arena.matches import Match, VoteStore
from spoutnik.commands.arena import arena as command
from spoutnik.commands.arena import service_of
from spoutnik.errors import UserError
from spoutnik.generation.catalog import EngineOptions
from spoutnik.store.history import FILE, History


@pytest.fixture
def scripted(make_service):
    return scripted_service(make_service)


def test_the_arena_in_the_terminal_is_blind_until_the_vote(scripted, monkeypatch):
    async def main():
        service, votes = scripted(("alpha", "beta"), reply=lambda number: ("t", "yes")), VoteStore(None)
        console, written = Console(file=StringIO(), width=80), []
        lines = iter(["How?", "x", "a", "Why?", "", ""])

        def read(prompt):
            written.append(console.file.getvalue())
            return next(lines)

        monkeypatch.setattr(console, "input", read)
        await arena.compare(service, votes, console, rng=Random(1))
        shown = console.file.getvalue()
        (vote,) = votes.votes()
        assert {vote.a, vote.b} == {"alpha", "beta"} and vote.outcome == "a" and shown.count("yes") == 4
        assert not re.search(r"alpha|beta", written[2]) and f"A was {vote.a}, B was {vote.b}." in written[3]
        with pytest.raises(UserError, match="compares two models"):
            await arena.compare(scripted(("alpha",)), votes, console)
        with pytest.raises(UserError, match="--effort huge"):
            await arena.compare(service, votes, console, "huge")
        await service.close(0)

    asyncio.run(main())


def test_ratings_are_shown(capsys):
    votes = VoteStore(None)
    arena.show_ratings(votes, Console(width=100))
    assert "no votes yet" in capsys.readouterr().out
    votes.record(Match("one", "two"), "a", "How?", ("So.", "No."))
    arena.show_ratings(votes, Console(width=100))
    assert re.search(r"one +1095 +905 to 1095 +1 +1 +0", capsys.readouterr().out)


def test_the_votes_of_the_page_are_rated_by_the_command(tmp_path):
    import typer
    app = typer.Typer()
    app.command()(command)
    asked = ["--ratings", "--data", str(tmp_path / "data")]
    assert "no votes yet" in CliRunner().invoke(app, asked).output and not (tmp_path / "data").exists()
    VoteStore(History(tmp_path / "data" / FILE)).record(Match("one", "two"), "b", "How?", ("So.", "No."))
    got = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert got["votes"] == 1 and [row["model"] for row in got["ratings"]] == ["two", "one"]
    with pytest.raises(UserError, match="--json needs --ratings"):
        CliRunner().invoke(app, ["--json", "--data", str(tmp_path)], catch_exceptions=False)


def test_who_meets(run):
    engine = EngineOptions(max_num_seqs=1)
    assert list(service_of([str(run)], [], engine).models) == ["run", "run:base", "run:student_base", "run:midtrained"]
    assert list(service_of([str(run)], ["base", "cold_start"], engine).models) == ["run:base", "run:cold_start"]
    with pytest.raises(UserError, match="bear the same name"):
        service_of([str(run), str(run)], [], engine)
    with pytest.raises(UserError, match="belongs to one run"):
        service_of([str(run), str(run)], ["base"], engine)
