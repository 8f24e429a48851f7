"""The audit before a run: what is rewarded, and only that; a sentence where it is refused."""

from pathlib import Path

import pytest
import yaml

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import UserError
from spoutnik.recipe.audit import audit_line, audit_rewards
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.tasks import FAMILIES, Problem, Task
from spoutnik.tasks.audit import cache as audit_cache

TINY = Path(__file__).with_name("tiny.yaml")


class Generous(Task):
    name = "generous"

    def sample(self, rng, split="train"):
        number = rng.randrange(10 ** 6)
        return Problem(self, 1, "en", f"Is {number} good?", "yes", {"number": number})

    def verify(self, problem, answer):
        return isinstance(answer, str)


def edited(tmp_path: Path, **keys) -> Path:
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(TINY.read_text()) | keys, sort_keys=False))
    return path


def test_only_what_is_rewarded_is_audited_and_it_is_told_in_a_line():
    recipe, lines = load_recipe(TINY), []
    audit_rewards(recipe, "tiny.yaml", ["base", "cold_start", "second_sft"], lines.append)
    assert not lines
    audit_rewards(recipe, "tiny.yaml", ["base", "reasoning_rl"], lines.append)
    audit_rewards(recipe, "tiny.yaml", ["rejection"], lines.append)
    assert len(lines) == 2 and lines[0] == lines[1]
    assert lines[0].startswith("verifiers audited: arithmetic, letters; the most that is paid to an answer without thought is ")


def test_a_second_audit_asks_no_verifier(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_cache, "cache_folder", lambda: tmp_path)
    tasks = [FAMILIES["arithmetic"], FAMILIES["letters"]]
    first = audit_line(tasks, {}, "tiny.yaml")

    def none(tasks, *rest):
        assert not tasks
        yield from ()

    monkeypatch.setattr(audit_cache, "audit_tasks", none)
    assert audit_line(tasks, {}, "tiny.yaml") == first


def test_what_pays_for_anything_is_refused_unless_the_recipe_says_why_not():
    with pytest.raises(UserError) as error:
        audit_line([FAMILIES["letters"], Generous()], {}, "my.yaml")
    text = str(error.value)
    assert text.startswith("my.yaml: the verifier of 'generous' is not fit to train on. ") and "letters" not in text
    assert "constants: 'yes' is graded 1.00" in text and "`exempt`" in text and "spoutnik audit generous" in text
    line = audit_line([FAMILIES["letters"], Generous()], {"generous": "to show how a policy hacks it"}, "my.yaml")
    assert "generous is exempted (to show how a policy hacks it)" in line


@pytest.mark.parametrize("exempt, sentence", [
    ({"leters": "because"}, "exempt.leters: there is no such task in this recipe. Did you mean 'letters'?"),
    ({"letters": " "}, "exempt.letters: is empty. Write why"),
])
def test_exemptions_are_of_the_recipe_s_tasks_and_have_a_reason(tmp_path, exempt, sentence):
    path = edited(tmp_path, exempt=exempt)
    with pytest.raises(UserError) as error:
        run_recipe(path, tmp_path / "run", SilentDisplay(), until="base")
    assert sentence in str(error.value) and not (tmp_path / "run" / "artifacts").exists()


def test_a_run_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(type(FAMILIES["letters"]), "verify", lambda self, problem, answer: True)
    monkeypatch.setattr(audit_cache, "cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(UserError, match="the verifier of 'letters' is not fit to train on"):
        run_recipe(TINY, tmp_path / "run", SilentDisplay(), until="reasoning_rl")
    assert not (tmp_path / "run" / "artifacts").exists()
