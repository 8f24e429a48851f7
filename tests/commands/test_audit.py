"""`spoutnik audit`: verdicts, exit status, and what is kept."""

import json

import pytest

from spoutnik.commands.main import app
from spoutnik.errors import UserError


@pytest.fixture
def audit(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        status = app(["audit", *arguments], standalone_mode=False)
        return status, capsys.readouterr().out

    return run


def test_families_pass_with_their_exemptions_told(audit, tmp_path):
    status, shown = audit("arithmetic", "letters", "--problems", "5")
    assert status == 0 and "arithmetic: passes: 5 problems, 5 of 5 own answers right" in shown
    assert "exempted: equation: 1 = GOLD is graded 1.00" in shown and shown.endswith("2 of 2 fit to train on.\n")
    kept = list((tmp_path / "spoutnik" / "audits").iterdir())
    assert len(kept) == 2
    assert audit("arithmetic", "letters", "--problems", "5")[1] == shown and len(kept) == 2


def test_a_set_that_pays_for_anything_is_refused_with_status_1(audit):
    pytest.importorskip("reasoning_gym")
    status, shown = audit("gym-game_of_life_halting", "--raw", "--problems", "2", "--json")
    result = json.loads(shown)
    assert status == 1 and result["refused"] == ["gym-game_of_life_halting raw"]
    [report] = result["reports"]
    constant = next(attack for attack in report["attacks"] if attack["attack"] == "constants")
    assert constant["mean"] == 1.0 and any(sentence.startswith("constants: ") for sentence in report["refusals"])
    status, shown = audit("gym-game_of_life_halting", "--raw", "--problems", "2")
    assert status == 1 and "REFUSED" in shown and "more, with --json" in shown
    assert shown.endswith("0 of 1 fit to train on. Refused: gym-game_of_life_halting raw.\n")


def test_wrong_names_are_sentences(audit):
    with pytest.raises(UserError, match="There is no task 'nothing'"):
        audit("nothing")
    with pytest.raises(UserError, match="is left out: "):
        audit("gym-game_of_life_halting")
    with pytest.raises(UserError, match="No set of reasoning-gym is called 'countdown'"):
        audit("countdown", "--raw")
