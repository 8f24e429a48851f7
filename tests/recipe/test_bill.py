"""The bill: energy measured, estimated or unknown, money, waste by cause, and what a point of accuracy cost."""

import math
from dataclasses import replace

import pytest

from spoutnik.files import write_json, write_jsonl
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.bill import BillSettings, bill_rows, energy_of, money_of, point_cost, total_row, wasted_by
from spoutnik.recipe.pairs import Pair, best_layout, pair, paired_with_root
from spoutnik.train.energy import Counter, _packages
from spoutnik.train.loop import Cost


def made(folder, stage, kind="sft", start=None, right=None, log=(), **bill):
    manifest = {"stage": stage, "kind": kind, "bill": {"seconds": 100.0, "core_seconds": 200.0} | bill, "settings": {},
                "inputs": {"start": {"stage": start}} if start else {}}
    write_json(folder / stage / "manifest.json", manifest)
    if log:
        write_jsonl(folder / stage / "log.jsonl", list(log))
    if right is None:
        return Artifact(stage, folder / stage, manifest)
    apart = folder / "evaluations" / stage
    write_json(apart / "evaluation.json", {"accuracy": {"mean": sum(right) / len(right)}, "bill": {"seconds": 1.0}})
    write_jsonl(apart / "samples.jsonl", [{"task": "t", "problem": str(i), "sample": 0, "correct": float(value), "level": i % 2,
                                           "language": "en"} for i, value in enumerate(right)])
    return Artifact(stage, folder / stage, manifest, apart)


def test_energy_is_measured_where_it_was_read_all_the_time_estimated_by_given_watts_and_else_unknown():
    measured = Cost(seconds=10, core_seconds=20, joules=500, metered_seconds=10)
    assert vars(energy_of(measured, BillSettings(watts=3))) == {"joules": 500, "how": "measured"}
    partly = replace(measured, metered_seconds=5)
    assert vars(energy_of(partly, BillSettings(watts=3))) == {"joules": 60, "how": "estimated"}
    assert vars(energy_of(partly, BillSettings())) == {"joules": None, "how": "unknown"}
    on_gpu = Cost(seconds=10, core_seconds=20, gpu_seconds=10)
    assert energy_of(on_gpu, BillSettings(watts=700)).joules == 7000
    assert energy_of(measured + measured, BillSettings()).joules == 1000


def test_money_is_what_hours_and_electricity_cost():
    cost = Cost(seconds=1800, core_seconds=3600)
    assert money_of(cost, BillSettings()) is None
    assert money_of(cost, BillSettings(price_per_hour=2)) == 2
    assert money_of(cost, BillSettings(price_per_hour=2, watts=1000, price_per_kwh=0.5)) == 2.5
    assert money_of(cost, BillSettings(price_per_kwh=0.5)) is None  # of an energy that nobody knows


def test_a_point_costs_what_the_gain_says_with_its_interval():
    gain = Pair("a", "b", 10, 0.5, 0.6, 0.10, 0.05, 0.20)
    cost = point_cost(Cost(core_seconds=100), gain)
    assert (cost.core_seconds, cost.low, cost.high) == pytest.approx((10, 5, 20))
    assert math.isinf(point_cost(Cost(core_seconds=100), replace(gain, low=-0.01)).high)
    assert point_cost(Cost(core_seconds=100), replace(gain, difference=-0.01)) is None


def test_waste_is_told_by_cause(tmp_path):
    log = [{"step": 0, "wasted_right": 30, "wasted_wrong": 10, "wasted_other": 0}, {"step": 1, "wasted_right": 5}]
    rl = made(tmp_path, "rl", "grpo", log=log, tokens_wasted=45)
    assert wasted_by(rl) == {"groups all right": 35, "groups all wrong": 10}
    assert wasted_by(made(tmp_path, "older", "grpo", log=[{"step": 0}], tokens_wasted=7)) == {"groups without variance": 7}
    assert wasted_by(made(tmp_path, "kept", "reject", tokens_wasted=9)) == {"rejected samples": 9}
    assert wasted_by(made(tmp_path, "taught")) == {}


def test_rows_and_their_sum(tmp_path):
    base, better = made(tmp_path, "base", "pretrain", right=[0, 1] * 60), made(tmp_path, "sft", start="base", right=[1] * 120)
    rows = bill_rows([base, better], {"base": "prebuilt"}, BillSettings(watts=10))
    assert [row.stage for row in rows] == ["base", "sft", "all evaluations"] and rows[0].origin == "prebuilt"
    assert rows[1].gain.difference == 0.5 and rows[1].point.core_seconds == pytest.approx(4) and rows[0].point is None
    total = total_row(rows, BillSettings(watts=10))
    assert total.cost.core_seconds == 400 and total.energy.joules == 4000 and total.energy.how == "estimated"


def test_pairs_are_of_the_same_problems_and_narrower_than_their_parts(tmp_path):
    one = made(tmp_path, "one", right=[0, 1] * 100)
    two = made(tmp_path, "two", start="one", right=[1, 1] + [0, 1] * 99)
    found = pair(one, two)
    assert found.problems == 200 and found.difference == pytest.approx(0.005) and found.high - found.low < 0.05
    other = made(tmp_path, "other", right=[0, 1] * 7)
    assert pair(one, other) is None and pair(one, made(tmp_path, "unasked")) is None
    last = made(tmp_path, "last", start="two", right=[1] * 200)
    assert [(each.a, each.b) for each in paired_with_root([one, two, last])] == [("one", "last")]


def test_a_base_is_shown_in_the_layout_in_which_it_is_right_more_often():
    assert best_layout({"accuracy": {"mean": 0.3}}) == ""
    assert best_layout({"accuracy": {"mean": 0.3}, "as_textbook": {"accuracy": {"mean": 0.8}}}) == "textbook"
    assert best_layout({"accuracy": {"mean": 0.3}, "as_textbook": {"accuracy": {"mean": 0.2}}}) == "forum"


def test_a_counter_of_energy_that_wraps_counts_on():
    values = iter([90.0, 95.0, 5.0, 5.0])
    counter = Counter(lambda: next(values), 100.0)
    assert [counter.lap(), counter.lap(), counter.lap()] == [5.0, 10.0, 0.0]


def test_packages_are_read_and_their_parts_are_not(tmp_path):
    for name, value in (("intel-rapl:0", 5_000_000), ("intel-rapl:0:0", 1_000_000), ("intel-rapl:1", 7_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(str(value))
        (tmp_path / name / "max_energy_range_uj").write_text("262143328850")
    counters = [make() for make in _packages(tmp_path)]
    assert [counter.last for counter in counters] == [5.0, 7.0]
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("6500000")
    assert [counter.lap() for counter in counters] == [1.5, 0.0]
    assert _packages(tmp_path / "none") == []
