"""A whole experiment: made once, shared, failed in part, killed and gone on with, and its page."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_experiment import experiment

from spoutnik.commands.main import app
from spoutnik.errors import RunError, UserError
from spoutnik.evals.protocol import held_out_problems
from spoutnik.experiment.page_file import Planned, check_page
from spoutnik.experiment.run import forecast, run_experiment
from spoutnik.experiment.scheduler import Watcher
from spoutnik.files import read_json, sha256_file, write_json
from spoutnik.recipe.shipped import experiment_name, find_experiment


class Listening(Watcher):
    def __init__(self):
        self.begun, self.errors = [], {}

    def started(self, job):
        self.begun.append(job.title)

    def ended(self, job, error):
        if error:
            self.errors[job.title] = error


def results(out: Path) -> dict[str, str]:
    """Everything but times: artifacts by content, samples by hash, the numbers of the findings."""
    made = {path.parent.name: read_json(path)["content"] for path in out.glob("artifacts/*/manifest.json")}
    asked = {path.parent.name: sha256_file(path) for path in out.glob("evaluations/*/samples.jsonl")}
    findings = [{key: one[key] for key in ("name", "difference", "low", "high", "verdict", "p_holds")}
                for one in read_json(out / "findings.json")["findings"]]
    return made | asked | {"findings": str(findings)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    path, watcher = experiment(folder), Listening()
    result = run_experiment(forecast([path], folder / "out", 2), [path], watcher)
    assert result.error is None and len(watcher.begun) == 9
    return folder, result


def test_the_page_has_a_row_and_a_section_for_each_finding(whole):
    folder, result = whole
    page = result.page.read_text()
    assert sum(page.count(f"| **{verdict}**") for verdict in ("undecided", "holds", "does not")) == 2
    assert "`mini` varies the recipe `small`." in page and "of the stage alone (with all before it): a " in page
    assert "## faster_is_better" in page and "fast: ten times the learning rate" in page and "x 2 samples" in page
    for name in ("faster_is_better", "loss_is_the_same", "overview"):
        assert (folder / "out" / "findings" / f"{name}.svg").read_text().startswith("<?xml")
    found = read_json(folder / "out" / "findings.json")["findings"][0]
    assert found["low"] <= found["difference"] <= found["high"] and len(found["seeds"]) == 2
    assert "**All its seeds share one base**: " in page


def test_nothing_is_made_twice_and_the_page_is_the_same(whole):
    folder, result = whole
    path, watcher, before = folder / "grid.yaml", Listening(), result.page.read_text()
    planned = forecast([path], folder / "out", 1)
    assert planned.seconds == {} and planned.wall == 0
    run_experiment(planned, [path], watcher)
    assert watcher.begun == [] and result.page.read_text() == before


def test_what_all_variants_are_asked_is_drawn_once(whole, monkeypatch):
    folder, _ = whole
    drawn = []
    monkeypatch.setattr("spoutnik.recipe.checks.held_out_problems",
                        lambda tasks, per_task: drawn.append(per_task) or held_out_problems(tasks, per_task))
    forecast([folder / "grid.yaml"], folder / "out", 1)
    assert drawn == [3]


def test_another_version_of_the_code_is_not_mixed_in_silence(whole, monkeypatch):
    folder, _ = whole
    monkeypatch.setattr("spoutnik.experiment.run.code_version", lambda: "9.9")
    path = folder / "grid.yaml"
    with pytest.raises(UserError, match="were made by Spoutnik .* and this is 9.9. .*--mixed-code"):
        run_experiment(forecast([path], folder / "out", 1), [path], Listening())
    mixed = run_experiment(forecast([path], folder / "out", 1), [path], Listening(), folder / "mixed.md", True)
    text = mixed.page.read_text()
    assert "**All results were made by Spoutnik " in text and "; this page was written by 9.9.**" in text


def planned(*names: str) -> list[Planned]:
    return [Planned(name, (0, 1), {}) for name in names]


def test_a_page_of_another_experiment_is_not_overwritten(tmp_path):
    write_json(tmp_path / "findings.json", {"experiments": ["mini"]})  # as format 1 had them
    check_page(tmp_path / "findings.md", planned("mini", "rest"))
    write_json(tmp_path / "findings.json", {"experiments": [{"name": "mini", "seeds": [0, 1]}]})
    check_page(tmp_path / "findings.md", planned("mini", "rest"))
    check_page(tmp_path / "other.md", planned("rest"))
    with pytest.raises(UserError, match="is the page of mini, and this is rest. Say --add, .*; or give another page"):
        check_page(tmp_path / "findings.md", planned("rest"))
    (tmp_path / "notes.json").write_text('["somebody\'s own"]')
    with pytest.raises(UserError, match="notes.json: is not of an experiment's page"):
        check_page(tmp_path / "notes.md", planned("rest"))
    (tmp_path / "README.md").write_text("Somebody's own.")
    with pytest.raises(UserError, match="README.md: is not an experiment's page, and would be replaced"):
        check_page(tmp_path / "README.md", planned("rest"))
    for page in (tmp_path, tmp_path / "page.json"):  # found out before hours of work, not after them
        with pytest.raises(UserError, match="must name a file of Markdown"):
            check_page(page, planned("rest"))


def twin(folder: Path) -> Path:
    """Another experiment on the same models, with the same stages and other findings."""
    def change(values: dict) -> None:
        values["name"], values["description"] = "twin", "does the other half tell more?"
        values["seeds"] = [1, 0]
        values["findings"] = {f"{name}_again": one for name, one in values["findings"].items()}

    path = experiment(folder, change)
    return path.rename(folder / "twin.yaml")


def files_of(page: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (page, page.with_suffix(".json"), *page.with_suffix("").iterdir())}


def test_a_page_that_grows_is_the_page_of_one_command(whole, tmp_path):
    folder, _ = whole
    other, first = twin(folder), experiment(folder)

    def added(name: str, *paths: Path) -> tuple[dict[str, bytes], list]:
        page = tmp_path / name / "findings.md"
        result = run_experiment(forecast(paths, folder / "out", 1), paths, Listening(), page, add=True)
        findings = sorted(result.content.findings, key=lambda one: one.name)
        return files_of(page), [(one.name, one.verdict, one.remark, one.p_adjusted) for one in findings]

    once = added("once", first, other)
    assert len(once[1]) == 4
    assert len(added("grown", first)[1]) == 2
    assert added("grown", other) == added("grown", first) == once
    added("turned", other)
    turned = added("turned", first)
    assert turned[1] == once[1] and turned[0].keys() == once[0].keys() and turned[0] != once[0]


def test_the_command_says_what_the_page_keeps(whole, tmp_path, capsys):
    folder, _ = whole
    shutil.copytree(folder / "out", tmp_path / "out")
    path = twin(tmp_path)
    command = ["experiment", str(path), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="is the page of mini, and this is twin. Say --add"):
        app([*command, "--dry-run"], standalone_mode=False)
    app([*command, "--dry-run", "--add"], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "The page keeps 2 findings of mini on seeds 0, 1; those of one experiment are joined, and all" in said
    app([*command, "--add", "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told["experiments"]] == ["mini", "twin"] and len(told["findings"]) == 4
    assert told["page"] == str(tmp_path / "out" / "findings.md")


def test_a_page_without_its_json_is_written_anew(whole, tmp_path):
    _, result = whole
    shutil.copy(result.page, tmp_path / "findings.md")
    check_page(tmp_path / "findings.md", planned("rest"))


def test_a_seed_that_fails_leaves_its_findings_undecided_and_the_others_stand(tmp_path, whole):
    path, watcher, out = experiment(tmp_path), Listening(), tmp_path / "out"
    shutil.copytree(whole[0] / "out", out)
    planned = forecast([path], out, 2)
    job = next(job for job in planned.grid.jobs.values() if (job.variant, job.stage, job.seed) == ("fast", "mine", 1))
    final = planned.store.final(job)
    shutil.rmtree(final)
    lock = out / "locks" / f"{final.name}.lock"
    lock.unlink()
    lock.mkdir()  # where the job would write its lock: it fails
    result = run_experiment(forecast([path], out, 2), [path], watcher)
    first, second = result.content.findings
    assert first.verdict == "undecided" and "seed 1 is missing (fast/mine, seed 1: " in first.remark
    assert second.verdict == "undecided" and "1 is missing" in second.remark
    assert "needs fast/mine, seed 1, which failed" in watcher.errors["fast/mine, seed 1, evaluation"]
    assert isinstance(result.error, RunError) and "1 of 9 jobs failed" in str(result.error)
    assert "seed 1 is missing" in result.page.read_text()
    lock.rmdir()
    again = run_experiment(forecast([path], out, 2), [path], Listening())
    assert again.error is None and results(out) == results(whole[0] / "out")


def test_killed_it_goes_on_and_ends_with_the_same_bytes(tmp_path, whole):
    path, out = experiment(tmp_path), tmp_path / "out"
    shutil.copytree(whole[0] / "out", out)
    for folder in [*out.glob("artifacts/mine-*"), *out.glob("evaluations/mine-*")][1:6]:
        shutil.rmtree(folder)
    program = ("import sys; from pathlib import Path; from spoutnik.experiment.run import forecast, run_experiment\n"
               "from spoutnik.experiment.scheduler import Watcher\n"
               "p = Path(sys.argv[1]); run_experiment(forecast([p], p.parent / 'out', 2), [p], Watcher())")
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((out / "working").glob("mine-*")):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    run_experiment(forecast([path], out, 2), [path], Listening())
    assert results(out) == results(whole[0] / "out")


def test_the_package_s_experiments_are_named_alike_on_every_machine():
    assert experiment_name(find_experiment(Path("findings-rl"))) == "findings-rl"
    assert experiment_name(Path("own/findings-rl.yaml")) == "own/findings-rl.yaml"
