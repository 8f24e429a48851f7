"""A page that grows over several sittings: written from plain data, read back, added to; its verdicts hold together."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.evals.statistics import shaffer
from spoutnik.experiment.content import Page, page_of
from spoutnik.experiment.finding import HOLDS, UNDECIDED, ComparedSide, Finding, SeedResult
from spoutnik.experiment.page import notes_of, page_as_markdown, write_page
from spoutnik.experiment.page_file import Planned, check_page, figure_of_training, page_as_json, read_page
from spoutnik.experiment.results import ExperimentResults, Spent, total
from spoutnik.files import read_json, write_json, write_text
from spoutnik.train.loop import Cost

SHARED = Spent("making", "cold-1", Cost(seconds=70.0, core_seconds=61.5, tokens_trained=10))


def finding(name: str, p: float = 1.0, **more) -> Finding:
    a, b = (ComparedSide(variant, "rl", "accuracy", "right answers, %", "forum") for variant in ("plain", "other"))
    seeds = tuple(SeedResult(seed, f"{name}{seed}", 40.0 + seed, 44.1 + seed, 100.0, 110.0, 10.0, 20.0) for seed in range(3))
    values = {"seeds": seeds, "models": 3, "problems": 100, "difference": 4.1, "low": 1.0, "high": 7.2, "seed_deviation": 0.8,
              "problem_error": 0.3, "problem_freedom": 90, "p_holds": p, "paper_number": 3.0} | more
    return Finding(name, f"Is {name} so?", "no | paper", "accuracy", "right answers, %", "points", a, b, "higher", 2.0,
                   "other: something", 4, f"{name} as it was", **values)


def results(name: str, *findings: Finding, code: str = "1.0", **more) -> ExperimentResults:
    values = {"shared": ("base",), "versions": (code,), "failed": {}, "curves": ("rl",),
              "bill": (SHARED, Spent("evaluating", f"{name}-asked", Cost(core_seconds=5.0)))} | more
    return ExperimentResults(name, name, f"`{name}` varies the recipe `nano`: why?", (0, 1, 2), code=code, findings=findings,
                             **values)


FIRST = results("first", finding("one", 0.01), finding("two", 0.03), finding("three", obstacle="seed 1 is missing."))
SECOND = results("second", finding("four", 0.011), finding("five", 0.5, p_does_not=0.001), code="1.1")


def trainings(page: Page) -> dict[str, str]:
    return {figure_of_training(one, stage): f"the training of {stage} in {one.name}" for one in page.sittings
            for stage in one.curves}


def planned(name: str, *findings: str) -> list[Planned]:
    return [Planned(name, (0, 1, 2), {one: f"{one} as it was" for one in findings})]


def written(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in sorted(path.parent.rglob("*")) if file.is_file()}


def verdicts(page: Page) -> dict[str, tuple]:
    return {one.name: (one.verdict, one.remark, one.p_holds_adjusted, one.p_does_not_adjusted) for one in page.findings}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A page of `first`."""
    page = page_of("1.0", [FIRST])
    write_page(page, tmp_path / "findings.md", trainings(page))
    return tmp_path / "findings.md"


def test_a_page_that_is_read_and_written_again_is_the_same_bytes(path):
    before = written(path)
    page = read_page(path)
    assert page == page_of("1.0", [FIRST])
    write_page(page, path, {}, page)
    assert written(path) == before and len(before) == 2 + 3 + 1 + 1


numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), numbers, st.none() | numbers, st.booleans()), min_size=1,
                max_size=6), st.text(max_size=20))
def test_any_numbers_come_back_as_they_were(tmp_path, rows, text):
    findings = [finding(f"f{number}", p, p_does_not=q, difference=difference, low=math.nan if low is None else low, note=text,
                        obstacle="none" if never else "") for number, (p, q, difference, low, never) in enumerate(rows)]
    failed = {f"{text}/rl, seed 1": text}
    page = page_of("1.0", [results("first", *findings[:2], failed=failed), results("second", *findings[2:])])
    write_json(tmp_path / "findings.json", page_as_json(page, notes_of(page)))
    again = read_page(tmp_path / "findings.md")
    assert json.dumps(page_as_json(again, notes_of(again))) == json.dumps(page_as_json(page, notes_of(page)))
    assert page_as_markdown(again, "findings") == page_as_markdown(page, "findings")


def test_what_is_added_twice_is_there_once_and_the_bytes_are_the_same(path):
    for _ in range(2):
        page = read_page(path).with_results([SECOND], "1.1")
        write_page(page, path, {"second.rl.seeds-0-2.svg": "new"}, read_page(path))
        before = written(path)
        assert [one.name for one in page.experiments] == ["first", "second"]
    again = read_page(path).with_results([FIRST], "1.1")  # in its own place
    write_page(again, path, {}, page)
    assert written(path) == before
    assert before["findings/second.rl.seeds-0-2.svg"] == b"new"
    assert before["findings/first.rl.seeds-0-2.svg"] == b"the training of rl in first"


def test_the_verdicts_do_not_depend_on_the_order_and_are_those_of_one_table():
    both = page_of("1.1", [FIRST]).with_results([SECOND], "1.1")
    other = page_of("1.1", [SECOND]).with_results([FIRST], "1.1")
    assert verdicts(both) == verdicts(other) == verdicts(page_of("1.1", [FIRST, SECOND]))
    adjusted = shaffer([(one.p_holds, one.p_does_not) for one in both.findings])
    assert [(one.p_holds_adjusted, one.p_does_not_adjusted) for one in both.findings] == adjusted


def test_a_kept_verdict_and_its_remark_change_with_the_number_of_findings(path):
    alone = page_of("1.0", [results("first", finding("one", 0.01))])
    assert alone.findings[0].verdict == HOLDS and alone.findings[0].remark == ""
    both = alone.with_results([results("second", *(finding(f"f{number}") for number in range(9)))], "1.0")
    kept = both.findings[0]
    assert kept.verdict == UNDECIDED and "which is not enough among 10 findings (p = 0.1)" in kept.remark
    assert both.with_results([results("second", finding("f"))], "1.0").findings[0].verdict == HOLDS
    missing = both.with_results([FIRST], "1.0").findings[2]
    assert missing.remark == "seed 1 is missing." and missing.verdict == UNDECIDED


def test_the_page_tells_of_each_experiment_and_of_all_together(path):
    text = page_as_markdown(read_page(path).with_results([SECOND], "1.1"), "findings")
    assert "5 findings of 2 experiments: " in text and "corrected for 5 findings" in text
    assert "* `first` varies the recipe `nano`: why? 3 findings on seeds 0, 1, 2. **All its seeds share one base**" in text
    assert "62 core-seconds to make what is compared, 10 to evaluate it" in text  # what both stand on once
    assert text.count("Its bill: 62 core-seconds to make what is compared, 5 to evaluate it") == 2
    assert "* Experiment: `second`" in text and "(findings/second.rl.seeds-0-2.svg)" in text
    assert "## Training of rl (first)" in text
    assert "findings hold together at 95 %" in text.replace("\n", " ") and "The verdicts of all 5" in text
    assert "Written by `spoutnik experiment first second`, at once or one after the other with --add." in text


def test_the_notes_say_which_code_made_what():
    assert notes_of(page_of("1.0", [FIRST])) == []
    old = page_of("1.1", [FIRST])
    assert notes_of(old) == ["All results were made by Spoutnik 1.0; this page was written by 1.1."]
    assert notes_of(old.with_results([SECOND], "1.1")) == [
        "The results come from several versions of the code (`first`: 1.0; `second`: 1.1); this page was written by 1.1."]
    mixed = page_of("1.1", [results("first", finding("one"), code="1.1", versions=("0.9", "1.1"))])
    assert notes_of(mixed) == ["The results come from several versions of the code: 0.9, 1.1."]
    measured = page_of("1.2", [replace(mixed.sittings[0], code="1.1", versions=("0.9",))])
    assert notes_of(measured)[0].endswith("written by 1.2. The numbers of `first` were measured by 1.1.")


def test_what_several_experiments_stand_on_is_paid_once_and_what_each_made_for_itself_twice():
    own = replace(SHARED, cost=replace(SHARED.cost, core_seconds=60.25))
    assert total([SHARED, SHARED])["making"].core_seconds == 61.5
    assert total([SHARED, own])["making"].core_seconds == 121.75


def test_figures_that_are_not_of_the_page_any_more_are_removed(path):
    write_text(path.with_suffix("") / "own.svg", "somebody's")
    before = read_page(path)
    write_page(before.with_results([results("first", finding("one"), curves=())], "1.0"), path, {}, before)
    assert {file.name for file in path.with_suffix("").iterdir()} == {"one.svg", "overview.svg", "own.svg"}


def test_without_add_a_page_of_others_is_not_replaced_and_the_sentence_names_it(path):
    with pytest.raises(UserError, match="is the page of first, and this is second. Say --add, which keeps the findings"):
        check_page(path, planned("second"))
    assert check_page(path, planned("first")) is None
    assert check_page(path, planned("second", "four"), add=True) == page_of("1.0", [FIRST])
    assert check_page(path.with_name("new.md"), planned("second", "four"), add=True) is None


def test_what_cannot_be_added_to_is_told_before_anything_is_made(path):
    with pytest.raises(UserError, match="has a finding two of first, and second has one of this name as well. Rename"):
        check_page(path, planned("second", "four", "Two"), add=True)
    check_page(path, planned("first", "two"), add=True)  # its own
    (path.with_suffix("") / "first.rl.seeds-0-2.svg").unlink()
    with pytest.raises(UserError, match="0-2.svg: is missing, and cannot be drawn again .* or run first again as well"):
        check_page(path, planned("second", "four"), add=True)
    check_page(path, planned("first", "one"), add=True)  # draws it
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match="has no findings.json beside it, .* or leave --add out"):
        check_page(path, planned("second", "four"), add=True)


@pytest.mark.parametrize("change, sentence", [
    (lambda data: data.pop("format"), r"another version of Spoutnik \(format 1, not 3\), .* Run first again as well, without"),
    (lambda data: data.update(format=2), r"\(format 2, not 3\)"),
    (lambda data: data.pop("sittings"), "findings.json: KeyError: 'sittings'. So it cannot be added to. Restore the file"),
    (lambda data: data["sittings"][0]["findings"][1].update(p_holds=2), "findings.1.p_holds = 2: Input should be less than"),
    (lambda data: data["sittings"][0]["findings"][1].update(margin=0), "findings.1.margin = 0: "),
    (lambda data: data["sittings"][0]["findings"][0].pop("seeds"), "findings: one lacks seeds. So it cannot"),
    (lambda data: data["sittings"][0]["findings"][0].pop("p_holds"), "findings: one lacks p_holds. So it cannot"),
    (lambda data: data["sittings"][0].pop("bill"), "bill = .*: Field required"),
    (lambda data: data["sittings"][0]["findings"].append(data["sittings"][0]["findings"][0]), "stands twice"),
    (lambda data: data["sittings"].append(data["sittings"][0]), "stands twice, or a seed in two sittings"),
    (lambda data: data["sittings"].append(data["sittings"][0] | {"name": "other", "seeds": [3]}), "stands twice"),
    (lambda data: data.update(sittings=[1]), "cannot be added to"),
    (lambda data: data.update(experiments={}), "is not of an experiment's page"),
])
def test_a_page_of_another_shape_is_told_in_a_sentence(path, change, sentence):
    data = read_json(path.with_suffix(".json"))
    change(data)
    write_json(path.with_suffix(".json"), data)
    with pytest.raises(UserError, match=sentence):
        check_page(path, planned("second", "four"), add=True)


def test_a_page_that_is_no_json_is_told_in_a_sentence(path):
    path.with_suffix(".json").write_text('{"format": 3,')
    for add in (False, True):
        with pytest.raises(UserError, match="findings.json: is not valid JSON, .* Restore the file"):
            check_page(path, planned("second", "four"), add)
