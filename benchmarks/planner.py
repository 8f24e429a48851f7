"""How far off `spoutnik plan` is: every published point, ours, the error; which were used for calibration.

    python benchmarks/planner.py [--json FILE]

Error: ours / published - 1, of a speed, a time, GPU-hours or money. The last line is the same as JSON. Takes some seconds of a
CPU, no GPU.
"""

import argparse
import json
import statistics
from functools import cache
from pathlib import Path

from planner_points import Point, memory_points, points

from spoutnik.files import read_json
from spoutnik.model.config import ModelConfig
from spoutnik.model.presets import preset, preset_names
from spoutnik.scale.closed_forms import BILLS, cpu_tokens_per_second, key_value_bytes, logits_bytes, utilization
from spoutnik.scale.costs import PlannedModel
from spoutnik.scale.hardware import GPUS, parse_cluster
from spoutnik.scale.layout import check_layout, parse_layout
from spoutnik.scale.memory import training_memory
from spoutnik.scale.rl import parse_rl, rl_time
from spoutnik.scale.serving import parse_serving, serving_plan
from spoutnik.scale.training import micro_batches, parse_training, training_time

_CONFIGS = Path(__file__).parent / "planner_configs"
R1_READ = 37.55e9  # parameters that a token's decoding reads
# (name, published tokens/s, bytes/s of the memory, bytes a parameter, engine); EPYC 9654 and 7773X in Q4 calibrate
PROCESSORS = (("ktransformers, EPYC 9654 and a GPU", 14, 461e9, 0.60, "ktransformers"),
              ("ktransformers, Xeon 6454S and a GPU", 8.7, 307e9, 0.60, "ktransformers"),
              ("llama.cpp, EPYC 7773X, Q4_K_M", 4.4, 205e9, 0.60, "llama.cpp"),
              ("llama.cpp, EPYC 7773X, Q8_0", 3.0, 205e9, 1.0625, "llama.cpp"),
              ("ik_llama.cpp, EPYC 7773X, Q4_K_M", 5.2, 205e9, 0.60, "llama.cpp"))
MEDIAN, WORST = 0.15, 0.30  # what is wanted of points that were not used for calibration


@cache
def model_of(name: str) -> PlannedModel:
    if name in preset_names():
        return PlannedModel(preset(name).config)
    path = _CONFIGS / f"{name}.json"
    return PlannedModel(ModelConfig.read(read_json(path), str(path)))


def ours(point: Point) -> float:
    """What the planner says of a point, in the unit of its measure."""
    model, cluster, layout = model_of(point.model), parse_cluster(point.cluster), parse_layout(point.layout)
    check_layout(layout, model.config, cluster)
    if point.measure == "step seconds":
        return rl_time(model, cluster, layout, parse_rl(point.work)).seconds
    if "put tokens/s" in point.measure:
        plan, scale = serving_plan(model, cluster, parse_serving(point.work)), 8 if point.measure.endswith("node") else 1
        return scale * (plan.prefill_rate if point.measure.startswith("input") else plan.tokens_per_second)
    work = parse_training(point.work)
    time = training_time(model, cluster, layout, work)
    if point.measure == "tokens/s/GPU":
        return time.tokens_per_second_per_gpu
    hours = work.tokens / time.tokens_per_second_per_gpu / 3600
    return cluster.cost(hours) if point.measure == "money" else hours


def errors() -> list[tuple[Point, float, float]]:
    """Each point with ours and its error."""
    return [(point, value, value / point.published - 1) for point in points() for value in [ours(point)]]


def memory_errors() -> list[tuple[str, float, float, float]]:
    """Name, published and ours in GiB, error."""
    rows = []
    for name, model, machines, divided, work, published in memory_points():
        cluster, layout, training = parse_cluster(machines), parse_layout(divided), parse_training(work)
        memory = training_memory(model_of(model), cluster, layout, training, micro_batches(training, layout, cluster))
        rows.append((name, published, memory.total / 2**30, memory.total / 2**30 / published - 1))
    return rows


def counts() -> list[tuple[str, float, float]]:
    """What follows from counts alone, or from one share of a processor's bandwidth: name, published, ours."""
    llama, peak = model_of("deepseek-r1-distill-llama-8b"), GPUS["h800"].bf16
    rows = [("GRPO's logits, 8 x 20,480 (unsloth), GiB", 78.3, logits_bytes(llama.config.vocab_size, 8, 20_480) / 2**30),
            ("cache of 20,480 tokens (unsloth), GiB", 2.5, key_value_bytes(llama, 20_480) / 2**30),
            ("V3's TFLOP/s of an H800 by 6ND", 343, utilization(37e9, 14.8e12, 2664e3, peak) * peak / 1e12)]
    for name, published, bandwidth, bytes_each, engine in PROCESSORS:
        rows.append((f"{name}, tokens/s of R1", published, cpu_tokens_per_second(R1_READ, bytes_each, bandwidth, engine)))
    return rows


def print_bills() -> None:
    """The published bills with all that is assumed in them."""
    for bill in BILLS:
        print(f"\n{bill.name} ({bill.source}): published ${bill.total:,.0f}, the sum of its parts ${bill.money:,.0f} at "
              f"${bill.price:g} a {bill.gpu.upper()}-hour, its authors' assumption")
        for line in bill.lines:
            print(f"  {line.what:34} {line.gpu_hours:11,.0f} h  ${bill.price * line.gpu_hours:11,.0f}  {line.assumed}")
        print(f"  left out: {bill.leaves_out}")


def summary(values: list[float]) -> dict[str, float]:
    sizes = [abs(value) for value in values]
    return {"points": len(sizes), "median": statistics.median(sizes), "worst": max(sizes),
            "beyond_30_percent": sum(size > WORST for size in sizes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    rows, memory = errors(), memory_errors()
    print(f"{'point':46} {'measure':20} {'published':>11} {'ours':>11} {'error':>7}  calibrates")
    for point, value, error in rows:
        mark = " !" if abs(error) > WORST and not point.calibrates else ""
        numbers = f"{point.published:11,.5g} {value:11,.5g} {error:+7.1%}"
        print(f"{point.name:46} {point.measure:20} {numbers}  {point.calibrates}{mark}")
    print(f"\n{'peak memory, torchtitan':46} {'GiB a GPU':20} {'published':>11} {'ours':>11} {'error':>7}")
    for name, published, value, error in memory:
        print(f"{name:46} {'':20} {published:11.1f} {value:11.1f} {error:+7.1%}")
    print(f"\n{'counts, and processors':66}  {'published':>11} {'ours':>11} {'error':>7}")
    for name, published, value in counts():
        print(f"{name:66}  {published:11,.4g} {value:11,.4g} {value / published - 1:+7.1%}")
    print_bills()
    tried = summary([error for point, _, error in rows if not point.calibrates])
    listed = summary([error for *_, error in memory])
    print(f"\nNot used for calibration: {tried['points']} points, median error {tried['median']:.1%} (wanted {MEDIAN:.0%}), "
          f"worst {tried['worst']:.0%}, {tried['beyond_30_percent']} beyond {WORST:.0%} (wanted none). "
          f"Memory: {listed['points']} points, median {listed['median']:.1%}, worst {listed['worst']:.0%}.")
    report = {"tried": tried, "memory": listed, "points": [
        {"name": point.name, "source": point.source, "measure": point.measure, "published": point.published, "ours": value,
         "error": error, "calibrates": point.calibrates, "assumed": point.assumed} for point, value, error in rows],
        "counts": [{"name": name, "published": published, "ours": value} for name, published, value in counts()],
        "bills": [{"name": bill.name, "published": bill.total, "ours": bill.money} for bill in BILLS],
        "memory_points": [dict(zip(("name", "published_gib", "ours_gib", "error"), row)) for row in memory]}
    text = json.dumps(report)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
