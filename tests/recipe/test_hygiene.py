"""The hygiene section of a recipe: what it drops, refuses and counts, and whose keys it changes."""

import json
from pathlib import Path

import pytest
import yaml

from spoutnik.errors import UserError
from spoutnik.recipe.folder import used_recipe
from spoutnik.recipe.hygiene import HygieneSettings, benchmark_problems, clean_traces
from spoutnik.recipe.keys import stage_contents, stage_settings
from spoutnik.recipe.schema import read_recipe
from spoutnik.train.data.loading import load_traces
from spoutnik.train.traces import TraceReport, notes_of, reports_of

TINY = Path(__file__).with_name("tiny.yaml")
TRAIN = "A train leaves the station at noon and travels sixty miles an hour until it reaches the next town. How far is it?"
THOUGHT = ("It travels for three hours at sixty miles an hour, so we have to multiply three by sixty, which makes one hundred "
           "and eighty miles in all.")
ROWS = [
    {"prompt": "What is two plus two, and why do we know it?", "thought": "Two and two.", "answer": "4"},
    {"prompt": TRAIN, "thought": THOUGHT, "answer": "180"},
    {"prompt": "A cat has four legs. How many legs have three cats?", "thought": THOUGHT, "answer": "12"},
    {"prompt": "A cat has four legs. How many legs have three cats?", "thought": THOUGHT.replace("in all", "altogether"),
     "answer": "12"},
    {"prompt": "And twice that?", "history": [[TRAIN, "180"]], "thought": "Twice.", "answer": "360"},
]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "traces.jsonl", ROWS)
    write(tmp_path / "bench.jsonl", [{"question": "Something else."}, {"question": TRAIN}])
    return tmp_path


def cleaned(folder: Path, **settings: object):
    return clean_traces(load_traces(folder / "traces.jsonl"), HygieneSettings(**settings))


def test_nothing_is_dropped_without_settings(folder):
    traces, warning = cleaned(folder)
    assert traces.rows == ROWS and warning is None and traces.report == TraceReport("traces.jsonl", 5, 5)


def test_contaminated_traces_are_dropped_and_counted(folder):
    traces, warning = cleaned(folder, benchmarks=[folder / "bench.jsonl"])
    assert traces.rows == [ROWS[0], ROWS[2], ROWS[3]] and warning is None
    assert (traces.report.used, traces.report.contaminated) == (3, 2)
    assert "2 with a benchmark's problem" in traces.report.sentence(100)
    assert notes_of(reports_of([traces])) == "2 of 5 traces of traces.jsonl left out (2 with a benchmark's problem)"


def test_near_duplicates_are_dropped_and_counted(folder):
    traces, _ = cleaned(folder, near_duplicates=True)
    assert traces.rows == [*ROWS[:3], ROWS[4]]
    assert (traces.report.used, traces.report.near_duplicate, traces.report.dropped) == (4, 1, 1)
    assert "1 near duplicate" in traces.report.note()


def test_a_warning_keeps_the_traces_and_counts_them(folder):
    traces, warning = cleaned(folder, benchmarks=[folder / "bench.jsonl"], contamination="warn")
    assert traces.rows == ROWS and traces.report.contaminated_used == 2 and traces.report.dropped == 0
    assert warning.startswith("Warning: traces.jsonl: 5 texts: 2 share problems with benchmarks (2 with bench.jsonl)")


def test_contamination_can_be_refused(folder):
    with pytest.raises(UserError, match="traces.jsonl.*problem 2 of bench.jsonl.*Remove them"):
        cleaned(folder, benchmarks=[folder / "bench.jsonl"], contamination="refuse")
    write(folder / "bench.jsonl", [{"question": "Something else."}])
    assert cleaned(folder, benchmarks=[folder / "bench.jsonl"], contamination="refuse")[0].rows == ROWS


def test_something_must_remain(folder):
    write(folder / "bench.jsonl", [{"prompt": row["prompt"]} for row in ROWS])
    with pytest.raises(UserError, match="no trace remains after hygiene"):
        cleaned(folder, benchmarks=[folder / "bench.jsonl"])


@pytest.mark.parametrize(("text", "message"), [
    ("", "holds no problems"), ('{"question": "a"}\n{"answer": 1}\n', "problem 2: has no text under question"),
    ('{"id": 1}\n', "problem 1: has no text under prompt or question"), ('{"question": \n', "line 1"), ("[1]\n", "line 1"),
])
def test_broken_benchmarks_are_told(tmp_path, text, message):
    path = tmp_path / "bench.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        benchmark_problems(path)


def recipe_with(folder: Path, hygiene: dict | None):
    values = yaml.safe_load(TINY.read_text("utf-8"))
    values["stages"]["mine"] = {"kind": "sft", "from": "base", "file": "traces.jsonl", "settings": {
        "epochs": 1, "tokens_per_step": 512, "learning_rate": 1.0e-2}}
    if hygiene is not None:
        values["hygiene"] = hygiene
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path, *read_recipe(path)


def key_parts(folder: Path, hygiene: dict | None, name: str) -> tuple[dict, dict]:
    path, _, recipe = recipe_with(folder, hygiene)
    stage = recipe.stages[name]
    return stage_settings(recipe, stage, str(path)), stage_contents(recipe, stage, name, str(path), {})


@pytest.mark.parametrize("hygiene", [{}, {"benchmarks": []}, {"benchmarks": ["bench.jsonl"], "contamination": "warn"},
                                     {"benchmarks": ["bench.jsonl"], "contamination": "refuse"}])
def test_what_drops_nothing_changes_no_key(folder, hygiene):
    assert key_parts(folder, hygiene, "mine") == key_parts(folder, None, "mine")


def test_what_drops_changes_the_keys_of_stages_with_files_alone(folder):
    plain, hygiene = key_parts(folder, None, "mine"), {"benchmarks": ["bench.jsonl"]}
    dropping = key_parts(folder, hygiene, "mine")
    assert dropping[0] == plain[0] | {"hygiene": {"contamination": "drop"}}
    assert dropping[1]["benchmarks"] and dropping[1]["file"] == plain[1]["file"]
    assert key_parts(folder, {"near_duplicates": True}, "mine")[0]["hygiene"] == {"near_duplicates": True}
    for name in ("base", "cold_start", "second_sft"):
        assert key_parts(folder, hygiene, name) == key_parts(folder, None, name)
    write(folder / "bench.jsonl", [{"question": "Something else."}])
    assert key_parts(folder, hygiene, "mine")[1]["benchmarks"] != dropping[1]["benchmarks"]


def test_a_benchmark_that_is_not_there_is_told(folder):
    with pytest.raises(UserError, match="recipe.yaml: hygiene.benchmarks: .*nowhere.jsonl: no such file"):
        recipe_with(folder, {"benchmarks": ["nowhere.jsonl"]})
    with pytest.raises(UserError, match="contamination"):
        recipe_with(folder, {"contamination": "ignore"})


def test_the_used_recipe_finds_its_benchmarks(folder):
    path, text, recipe = recipe_with(folder, {"benchmarks": ["bench.jsonl", str(folder / "bench.jsonl")]})
    out = folder / "runs" / "one"
    out.mkdir(parents=True)
    (out / "recipe.yaml").write_text(used_recipe(text, recipe, path, out))
    benchmarks = read_recipe(out / "recipe.yaml")[1].hygiene.benchmarks
    assert [benchmark.resolve() for benchmark in benchmarks] == [(folder / "bench.jsonl").resolve()] * 2
