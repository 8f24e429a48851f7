"""Data sets of the hub as files of rows: names, the cache, what goes wrong, and the library itself where it is installed."""

import json
import sys
from pathlib import Path

import pytest

from spoutnik.errors import RunError, UserError
from spoutnik.hub_data import HubData, hub_file, is_hub_name, load_rows, parse_hub_name, pinned
from spoutnik.recipe.own_data import existing_files
from spoutnik.recipe.schema import load_recipe
from spoutnik.recipe.stage_kinds import SFTStage
from spoutnik.row_files import files_at
from spoutnik.train.data.loading import load_traces

COMMIT = "740312add88f781978c0658806c59bc2815b9866"
ROWS = [{"question": f"What is {number} + 1?", "answer": f"Add.\n#### {number + 1}"} for number in range(3)]
RECIPE = """name: own
models: {student: {checkpoint: MODEL}}
stages:
  tuned: {kind: sft, from: student, file: "hub:openai/gsm8k@COMMIT:main:train", settings: {epochs: 1, learning_rate: 1.0e-3}}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache, and a working folder of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache" / "spoutnik" / "hub-data"


class Table:
    """Stands for what `datasets` gives; its file is one of JSON lines, which suffices to be found again."""

    def to_parquet(self, path: str) -> int:
        return Path(path).write_text("".join(json.dumps(row) + "\n" for row in ROWS))


@pytest.mark.parametrize("name, data", [
    ("hub:openai/gsm8k", HubData("openai/gsm8k")), ("hub:openai/gsm8k:test", HubData("openai/gsm8k", split="test")),
    ("hub:openai/gsm8k:main:train[:10]", HubData("openai/gsm8k", config="main", split="train[:10]")),
    (f"hub:openai/gsm8k@{COMMIT}:main:test", HubData("openai/gsm8k", COMMIT, "main", "test")),
    ("hub:a.b/c-d_e@v1.0:test", HubData("a.b/c-d_e", "v1.0", None, "test"))])
def test_names_and_back(name, data):
    assert parse_hub_name(Path(name)) == data and parse_hub_name(str(data)) == data and is_hub_name(Path(name))
    assert data.is_pinned == (data.revision == COMMIT)


@pytest.mark.parametrize("name", ["hub:gsm8k", "hub:", "hub:a/b/c", "hub:openai/gsm8k:", "hub:openai/gsm8k@", "hub:a/b:c:d:e"])
def test_names_that_are_none(name):
    with pytest.raises(UserError, match="is no data set of the hub. Write hub:OWNER/NAME"):
        files_at(Path(name))
    assert not is_hub_name("hubs/my.jsonl")


def test_a_part_is_fetched_once_and_then_from_the_cache(cache):
    asked = []

    def load(data: HubData, scratch: Path) -> Table:
        asked.append((data, scratch.is_dir()))
        return Table()

    data = HubData("openai/gsm8k", COMMIT, "main", "train[:3]")
    file = hub_file(data, load)
    assert file == cache / "openai--gsm8k" / COMMIT / "main-train__3_.parquet" and asked == [(data, True)]
    assert hub_file(data, load) == file and len(asked) == 1 and files_at(Path(str(data))) == [file]
    assert [each.name for each in file.parent.iterdir()] == [file.name]  # nothing is left of the way there


@pytest.mark.parametrize("error, kind, sentence", [
    (ValueError('Unknown split "dev". Should be one of\n[\'train\']'), UserError, "Unknown split .*Correct the name"),
    (FileNotFoundError("Couldn't find"), UserError, "Couldn't find. Correct the name"),
    (ConnectionError("no route"), RunError, "cannot be read from the hub .no route.*or fetch the files yourself")])
def test_what_the_library_raises_is_a_sentence(cache, error, kind, sentence):
    def load(data: HubData, scratch: Path) -> Table:
        raise error

    with pytest.raises(kind, match=f"hub:openai/gsm8k@{COMMIT}:dev: {sentence}"):
        hub_file(HubData("openai/gsm8k", COMMIT, None, "dev"), load)
    assert not [*cache.rglob("*.parquet")]


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the package datasets. Install it \(pip install 'spoutnik\[datasets\]'\)"):
        files_at(Path(f"hub:openai/gsm8k@{COMMIT}:main:train"))


def test_a_folder_of_the_same_name_is_not_read_in_its_place(tmp_path):
    (tmp_path / "here" / "openai" / "gsm8k").mkdir(parents=True)
    with pytest.raises(UserError, match="there is also a folder openai/gsm8k here"):
        hub_file(HubData("openai/gsm8k", COMMIT), lambda data, scratch: Table())


def test_a_recipe_wants_the_commit_and_keeps_the_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "own.yaml"
    path.write_text(RECIPE.replace("COMMIT", COMMIT).replace("MODEL", str(tmp_path)))
    assert str(load_recipe(path).stages["tuned"].file) == f"hub:openai/gsm8k@{COMMIT}:main:train"
    stage = SFTStage.model_validate({"kind": "sft", "from": "base", "file": "hub:openai/gsm8k:main:train",
                                     "settings": {"epochs": 1, "learning_rate": 1e-3}})
    with pytest.raises(UserError, match="stages.tuned.file = 'hub:openai/gsm8k:main:train': names no commit.*@COMMIT"):
        existing_files(stage, "tuned", str(path))
    with pytest.raises(RunError, match="cannot be asked which revision this is"):
        pinned(HubData("openai/gsm8k", "main"))


def test_the_library_s_tables_are_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the extra: pip install 'spoutnik[datasets]'")
    folder = tmp_path / "published"
    folder.mkdir()
    datasets.Dataset.from_list(ROWS).to_parquet(str(folder / "train.parquet"))
    data = HubData("someone/sums", COMMIT, None, "train[:2]")
    file = hub_file(data, lambda data, scratch: load_rows(HubData(str(folder), None, data.config, data.split), scratch))
    traces = load_traces(Path(str(data)))
    assert [(row["thought"], row["answer"]) for row in traces.rows] == [("Add.", "1"), ("Add.", "2")]
    assert file.suffix == ".parquet"
    assert traces.description.startswith(f"sums@{COMMIT}:train[:2]: recognized as question/answer")
    with pytest.raises(UserError, match="Correct the name"):
        hub_file(HubData("someone/sums", COMMIT, None, "dev"),
                 lambda data, scratch: load_rows(HubData(str(folder), None, None, "dev"), scratch))
