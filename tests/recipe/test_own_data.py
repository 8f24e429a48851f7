"""A stage's own data in a recipe: what changes its key, what is held out, what is refused before it starts."""

import gzip
import json

import pytest
from small_recipe import TRACES, Listening, prepared

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import UserError
from spoutnik.recipe.keys import stage_contents, stage_settings
from spoutnik.recipe.own_data import own_data
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe


def parts(path) -> tuple[dict, dict]:
    recipe = load_recipe(path)
    stage = recipe.stages["mine"]
    return stage_settings(recipe, stage, str(path)), stage_contents(recipe, stage, "mine", str(path), {})


def changed(folder, **stage):
    return prepared(folder, lambda values: values["stages"]["mine"].update(stage))


def test_settings_at_their_defaults_change_no_key_and_others_do(tmp_path):
    settings, contents = parts(prepared(tmp_path))
    assert not {"columns", "learn", "held_out_share"} & set(settings)
    assert parts(changed(tmp_path, columns={}, learn="last", held_out_share=0)) == (settings, contents)
    for change in ({"columns": {"prompt": "thought"}}, {"learn": "all"}, {"held_out_share": 0.5}):
        assert parts(changed(tmp_path, **change)) == (settings | change, contents)


def test_the_contents_of_all_files_count(tmp_path):
    _, alone = parts(prepared(tmp_path))
    (tmp_path / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "data" / name).write_text(json.dumps(TRACES[0]) + "\n")
    _, both = parts(changed(tmp_path, file="data"))
    assert parts(changed(tmp_path, file="data/*.jsonl"))[1] == both != alone
    (tmp_path / "data" / "b.jsonl").write_text(json.dumps(TRACES[1]) + "\n")
    assert parts(changed(tmp_path, file="data"))[1] != both


@pytest.mark.parametrize("change, what", [
    ({"file": None, "general": 4, "held_out_share": 0.1}, "columns, learn and held_out_share are of the traces of file"),
    ({"columns": {"promt": "q"}}, "columns.promt: is no key of a known shape. Did you mean 'prompt'"),
    ({"columns": {"prompt": "q", "answer": "answer"}}, "the key 'q' is missing, which columns.prompt names"),
    ({"held_out_share": 1}, "held_out_share"), ({"learn": "first"}, "learn"), ({"file": "*.csv"}, "no file fits this pattern"),
], ids=range(6))
def test_what_is_wrong_is_found_before_the_first_stage(tmp_path, change, what):
    with pytest.raises(UserError) as error:
        run_recipe(changed(tmp_path, **change), tmp_path / "run", SilentDisplay())
    assert what in str(error.value) and not (tmp_path / "run").exists()


def test_a_data_set_that_cannot_be_split_is_refused_before_the_first_stage(tmp_path):
    path = changed(tmp_path, held_out_share=0.5)
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(TRACES[0] | {"answer": str(i)}) + "\n" for i in range(9)))
    with pytest.raises(UserError, match="held_out_share = 0.5 leaves nothing to"):
        run_recipe(path, tmp_path / "run", SilentDisplay())
    assert not (tmp_path / "run").exists()


def test_held_out_traces_are_measured_and_not_trained_on(tmp_path):
    path = changed(tmp_path, file="own.json.gz", columns={"prompt": "q", "answer": "a"}, held_out_share=0.3)
    rows = [{"q": row["prompt"], "a": row["answer"]} for row in TRACES]
    (tmp_path / "own.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    recipe = load_recipe(path)
    own = own_data(recipe.stages["mine"], recipe.hygiene)
    display = Listening()
    manifest = run_recipe(path, tmp_path / "run", display).artifacts[-1].manifest
    (report,) = manifest["data"]
    assert (report["read"], report["used"], report["held_out"]) == (12, len(own.train.rows), len(own.held_out.rows))
    metrics = manifest["metrics"]
    assert metrics["traces"] == len(own.train.rows) < 12 and metrics["held_out_loss"] != metrics["held_out_loss_before"] > 0
    assert any("held-out traces" in text for text in display.said)
    assert any("recognized as prompt/answer (prompt from q, answer from a)" in text for text in display.said)
