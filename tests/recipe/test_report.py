"""The stage table and the HTML report, on hand-made artifacts: the page shows what the files say."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_artifacts import (
    FAMILIES,
    HOSTILE,
    ORIGINS,
    RECIPE,
    artifact,
    evaluation,
    loss_log,
    report_of,
    rl_log,
    whole_run,
)
from rich.console import Console

from spoutnik.files import write_json, write_jsonl
from spoutnik.recipe.artifacts import ALONG, Artifact
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.report import Extras, other_seeds, summary, write_report
from spoutnik.recipe.report_plots import control_of, panels
from spoutnik.recipe.table import as_json, best_values, count, families_of, helpful_percent, print_table, rows
from spoutnik.units import duration


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, list[Artifact]]:
    root = tmp_path_factory.mktemp("run")
    return root, whole_run(root)


@pytest.fixture(scope="module")
def page(run) -> str:
    return report_of(*run)


def test_rows_hold_what_the_files_hold(run):
    table = {row.stage: row for row in rows(run[1], ORIGINS)}
    assert table["reasoning_rl"].accuracy.mean == 0.71 and table["reasoning_rl"].thought_tokens == 88
    assert table["base"].origin == "prebuilt" and table["base"].helpfulness is None
    assert table["cold_start"].tokens == 12345 and families_of(list(table.values())) == FAMILIES
    assert table["reasoning_rl"].dialogues == 0.6 and table["base"].dialogues is None
    assert table["rejection"].accuracy is None and table["rejection"].note == "kept 31.0 % of samples (1,270 of 4,096)"
    assert table["reward_model"].note == "orders 95.3 % of held-out pairs right"
    assert best_values(list(table.values()))["accuracy"] == 0.74
    assert json.loads(json.dumps(as_json(list(table.values()))))[3]["families"]["bases"]["mean"] == pytest.approx(0.77)


def test_helpfulness_is_content_and_form_and_older_evaluations_are_read(tmp_path):
    newer = evaluation(0.6) | {"helpfulness": {"content": 0.97, "form": 0.79}}
    made = [artifact(tmp_path, "older", "sft", loss_log(9), evaluation(0.6)),
            artifact(tmp_path, "newer", "sft", loss_log(9), newer),
            artifact(tmp_path, "judge", "reward_model", loss_log(9), inputs={"start": "newer"}, metrics={
                "held_out_pair_accuracy": 0.9, "held_out_pairs_of_form": 1.0, "held_out_pairs_of_relevance": 0.89,
                "held_out_pairs_of_truth": 0.55, "constant_score": 0.3, "right_score": 0.8})]
    older, newer, judge = rows(made, {})
    assert (older.helpfulness, older.helpful_content, helpful_percent(older)) == (0.5, None, "50")
    assert newer.helpfulness == pytest.approx(0.88) and helpful_percent(newer) == "97/79"
    assert judge.note == ("orders 90.0 % of held-out pairs right (form 100, relevance 89, truth 55), scores one answer to all "
                          "questions 0.30, right answers 0.80")
    page = report_of(tmp_path, made)
    assert "97.0/79.0" in page and "50.0" in page
    out = io.StringIO()
    print_table([older, newer, judge], Console(file=out, width=120, color_system=None))
    assert " 97/79 " in out.getvalue() and "held-out problems (training has their like)" in " ".join(out.getvalue().split())
    assert "Training has their like" in page


def test_the_table_and_the_report_say_what_is_held_out(tmp_path):
    judged = evaluation(0.6)
    judged["protocol"]["held_out"] = "structure"
    made = [artifact(tmp_path, "one", "sft", loss_log(9), judged)]
    out = io.StringIO()
    print_table(rows(made, {}), Console(file=out, width=120, color_system=None))
    assert "pass@1 on problems of held-out structures" in out.getvalue()
    assert "No text of training has a problem of their structure." in report_of(tmp_path, made)


def test_the_terminal_table_fits_120_columns(run):
    out = io.StringIO()
    print_table(rows(run[1], ORIGINS), Console(file=out, width=120, color_system=None))
    lines = out.getvalue().splitlines()
    table = {line.split()[0]: line for line in lines}
    assert max(map(len, lines)) <= 120
    assert "71.0 ±5.0" in table["reasoning_rl"] and "all_scenarios_rl" in table and "1:40" in table["distilled"]
    assert "…" not in out.getvalue() and "rejection: kept 31.0 %" in out.getvalue()


@pytest.mark.parametrize("seconds,expected", [(4.24, "4.2 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3700, "1 h 01 min")])
def test_durations(seconds, expected):
    assert duration(seconds) == expected


@pytest.mark.parametrize("number,expected", [(0, "0"), (999, "999"), (12345, "12.3k"), (999_600, "1M"), (4.56e6, "4.56M")])
def test_counts(number, expected):
    assert count(number) == expected


def test_the_page_shows_the_numbers(page):
    for shown in ("71.0", "66.0–76.0", "kept 31.0 % of samples (1,270 of 4,096)", "<strong>74.0</strong>",
                  "orders 95.3 % of held-out pairs right", "Problem 1 of calendar?", "reasoning_rl says 0",
                  "0.1.0+abc", "12,000", "345", "67", "900 MiB", "reasoning_rl-key0", "reasoning_rl-made0",
                  "prebuilt", "2027-01-15"):
        assert shown in page, shown
    assert page.count('class="panel"') == 2 * 8 + 6  # two RL stages, six supervised ones
    assert page.count('class="stage-box ') == 9 and page.count('marker-end="url(#arrow)"') == 10


def test_rl_is_shown_beside_its_control_and_along_its_training(tmp_path):
    def with_settings(one: Artifact, **settings) -> Artifact:
        manifest = one.manifest | {"settings": {"settings": {"rewards": {"accuracy": 1.0}} | settings}}
        return replace(one, manifest=manifest)

    zero, coin, sft = (artifact(tmp_path, name, kind, log, inputs={"start": "base"}) for name, kind, log in (
        ("zero", "grpo", rl_log(30)), ("coin", "grpo", rl_log(30)), ("sft", "sft", loss_log(9))))
    zero, coin = with_settings(zero), with_settings(coin, rewards={"accuracy": 1.0, "random": 0.5})
    assert control_of(zero, [sft, zero, coin]) is coin and control_of(coin, [zero, coin]) is control_of(sft, [coin]) is None
    alone = panels(zero)
    both = panels(zero, coin)
    assert [len(panel.svg) for panel in both] != [len(panel.svg) for panel in alone]
    assert "of the control coin" in both[1].label and "of the control" not in both[0].label + alone[1].label  # no reward beside
    replies = [{"step": step, "task": "liars", "level": 2, "language": "en", "prompt": "Who lies?", "gold": "Anna", "thought":
                HOSTILE * (step > 0), "answer": f"Bo {step}", "correct": 0.0, "well_formed": True, "thought_tokens": step}
               for step in (0, 15, 30)]
    write_jsonl(zero.folder / ALONG, replies)
    page = report_of(tmp_path, [zero, coin, sft])
    shown = page[page.index("The same problems along the training"):]
    assert [shown.count(text) for text in ("step 0 ", "step 15 ", "step 30 ", "Bo 30")] == [1, 1, 1, 1]
    assert "<script>" not in page and "30 tokens of thought" in shown


def test_model_and_user_text_is_escaped(page):
    assert "<script" not in page and "&lt;script&gt;alert" in page
    assert "<b>bold" not in page and "&lt;b&gt;bold" in page and "Test <CPU>" not in page
    assert "\x0e" not in page and "\x1b" not in page


def test_the_page_loads_nothing(page):
    assert not re.search(r"""(src|href|srcset|action)\s*=\s*["']?\s*(https?:)?//""", page)
    assert "@import" not in page and not re.search(r"url\(\s*['\"]?(https?:)?//", page)
    targets = {target for target in re.findall(r"""href\s*=\s*["']([^"']*)""", page) if not target.startswith("#")}
    assert targets == {"report.json", "report.md"}  # beside it, and read on a click alone
    assert not re.search(r"<(link|iframe|img|object|embed)\b", page)


def test_ids_are_unique_and_references_resolve(page):
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_the_page_is_the_same_each_time(run, page):
    assert report_of(*run) == page


def test_the_summary_says_what_the_data_show(tmp_path):
    text = " ".join(summary(whole_run(tmp_path), ORIGINS))
    assert "reasoning_rl raised pass@1 on held-out problems from 37.0 % to 71.0 %" in text
    assert "thoughts grew from 42 to 88 tokens" in text
    assert "3.7 times the base model's 20.0 %" in text
    assert "student distilled reaches 52.0 %" in text
    lower = " ".join(summary(whole_run(tmp_path / "b", final=0.45), ORIGINS))
    assert "all_scenarios_rl lowered pass@1 on held-out problems from 66.0 % to 45.0 %" in lower
    unclear = " ".join(summary(whole_run(tmp_path / "c", final=0.67), ORIGINS))
    assert "it may be chance" in unclear


def test_a_small_difference_on_the_same_problems_is_not_called_chance(tmp_path):
    """Both intervals overlap by far, and every tenth problem was won while none was lost."""
    made = []
    for name, wins, inputs in (("sft", 200, {}), ("rl", 240, {"start": "sft"})):
        one = artifact(tmp_path, name, "grpo" if inputs else "sft", loss_log(9), evaluation(wins / 400), inputs=inputs)
        write_jsonl(one.evaluation_folder / "samples.jsonl", [
            {"task": "liars", "problem": str(number), "sample": 0, "correct": float(number < wins), "level": 1,
             "language": "en"} for number in range(400)])
        made.append(one)
    text = summary(made, {})[0]
    assert "raised pass@1 on held-out problems from 50.0 % to 60.0 % (on the same problems +10.0 (+7.0 to +13.0) poi" in text
    assert "chance" not in text


def test_a_run_of_one_stage_without_log_or_right_answers(tmp_path):
    only = [artifact(tmp_path, "base", "pretrain", [], evaluation(0.0, style="forum"))]
    page = report_of(tmp_path, only)
    assert "base answers 0.0\u00a0% of held-out problems" in page and 'class="panel"' not in page


def test_a_stage_without_evaluation_alone_and_odd_logs(tmp_path):
    odd = [{"step": 0, "loss": float("nan"), "reward": 0.1}, {"step": 1, "reward": 0.2}]
    page = report_of(tmp_path, [artifact(tmp_path, "rl", "grpo", odd)])
    assert "No stage of this run has been evaluated" in page and page.count('class="panel"') == 1


def test_a_student_s_mid_training_is_not_the_last_model(tmp_path):
    artifacts = whole_run(tmp_path)
    artifacts.insert(-1, artifact(tmp_path, "student_midtrained", "midtrain", loss_log(60), evaluation(0.12, 30, style="forum"),
                                  inputs={"start": "student_base"}))
    write_report(tmp_path / "report.html", "toy", RECIPE, artifacts, ORIGINS | {"student_midtrained": "made now"})
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "The last model, all_scenarios_rl, answers" in page


def test_the_report_is_there_as_data_and_as_text(run, page):
    root, _ = run
    data = json.loads((root / "report.json").read_text("utf-8"))
    assert {row["stage"] for row in data["stages"]} == set(ORIGINS) and data["bill"][-1]["stage"] == "total"
    assert data["differences"][0]["a"] == "base" and len(data["logs"]["reasoning_rl"]) == 60
    text = (root / "report.md").read_text("utf-8")
    assert "| reasoning_rl | grpo | 71.0 (66.0 to 76.0) |" in text and "## The bill" in text
    assert "cold_start | reasoning_rl | 32 |" in text and "cold_start | reasoning_rl" not in page
    assert "+100.0 (" in page  # of the same problems, none right before and all after


def test_phases_and_other_seeds_stand_in_the_curves(tmp_path):
    rl = artifact(tmp_path, "last", "grpo", rl_log(40))
    rl.manifest["settings"] = {"settings": {"general_share": 0.25, "general_from": 0.75, "steps": 40}}
    other = artifact(tmp_path / "b", "last", "grpo", rl_log(40))
    write_report(tmp_path / "report.html", "toy", RECIPE, [rl], ORIGINS, Extras(other_seeds={"last": [other]}))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "2 seeds; general prompts from step 30" in page and ">2 seeds</span>" in page


def test_losses_have_a_logarithmic_axis_and_rewards_have_none(run):
    titles = {panel.title for one in run[1] if one.kind in ("pretrain", "grpo") for panel in panels(one)}
    assert "loss, nats (log)" in titles and "reward" in titles


def test_other_seeds_of_a_stage_are_found_in_the_folder(tmp_path):
    one, two = (artifact(tmp_path / name, "rl", "grpo", rl_log(5)) for name in ("a", "b"))
    write_json(two.folder / "manifest.json", two.manifest | {"seed": 4})
    two.folder.rename(tmp_path / "a" / "artifacts" / "rl-ba9876543210")
    found = other_seeds(RunFolder(tmp_path / "a"), [one])
    assert [each.manifest["seed"] for each in found["rl"]] == [4]
