"""The package's recipes are found by their names wherever one is, and are those of the repository."""

from pathlib import Path

from cli import spoutnik

from spoutnik.recipe.schema import load_recipe
from spoutnik.recipe.shipped import find_recipe, shipped_recipes

ROOT = Path(__file__).parents[2]


def test_the_names_are_those_of_the_repository():
    assert shipped_recipes() == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def test_a_name_means_the_package_s_recipe_and_a_file_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe(find_recipe(Path("nano"))).name == "nano"
    (tmp_path / "nano").mkdir()  # a folder is no recipe
    assert load_recipe(find_recipe(Path("nano"))).name == "nano"
    (tmp_path / "nano").rmdir()
    (tmp_path / "nano").write_text("name: mine\n")
    assert find_recipe(Path("nano")) == Path("nano")


def test_a_plan_by_name(tmp_path):
    plan = spoutnik("run", "nano", "--dry-run", "--out", str(tmp_path / "run"))
    assert plan.returncode == 0 and "cold_start" in plan.stdout


def test_another_name_is_answered_with_those_that_there_are():
    answer = spoutnik("run", "nanu")
    assert answer.returncode == 2 and "nano" in answer.stderr
