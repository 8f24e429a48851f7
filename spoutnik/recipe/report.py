"""The report of a run: one HTML file that needs no network and shows the stage table, the curves and the bill.

Everything a person or a model wrote is escaped by the template; nothing is claimed that the evaluations do not show.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spoutnik.errors import RunError
from spoutnik.files import read_json, write_json, write_text
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.bill import BillSettings, bill_rows, total_row
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.pairs import Pair, paired_with_root, paired_with_start
from spoutnik.recipe.report_text import as_markdown, energy_text, money_text, point_text, points, wasted_text
from spoutnik.recipe.table import StageRow, as_json, best_values, clock, count, families_of, helpful_percent, percent, rows
from spoutnik.tasks.audit import Report
from spoutnik.train.health import SHRUNK
from spoutnik.train.loop import Cost
from spoutnik.units import duration

OPEN_SAMPLES = 3  # problems unfolded when the page opens
SHOWN_PROBLEMS = 2  # of each family


@dataclass(frozen=True)
class Extras:
    """What a report shows beside the artifacts. audits: of the verifiers that reward. other_seeds: stage -> the same stage with
    the same settings and other seeds."""

    bill: BillSettings = BillSettings()
    audits: Sequence[Report] = ()
    other_seeds: Mapping[str, Sequence[Artifact]] = field(default_factory=dict)


def other_seeds(run: RunFolder, artifacts: Iterable[Artifact]) -> dict[str, list[Artifact]]:
    """Stage -> artifacts of the folder that differ from the run's in their seed and what follows from it."""
    found: dict[str, list[Artifact]] = {}
    for artifact in artifacts:
        for folder in sorted((run.path / "artifacts").glob(f"{artifact.stage}-{'?' * 12}")):
            try:
                manifest = read_json(folder / "manifest.json")
            except RunError:
                continue  # a damaged one, which nobody asked for
            if (manifest.get("settings"), manifest.get("kind")) == (artifact.manifest["settings"], artifact.kind) \
                    and manifest["seed"] != artifact.manifest["seed"]:
                found.setdefault(artifact.stage, []).append(Artifact(artifact.stage, folder, manifest))
    return found


def write_report(path: Path, recipe_name: str, recipe_text: str, artifacts: Sequence[Artifact],
                 origins: dict[str, str], extras: Extras | None = None) -> None:
    """Writes the report of `artifacts` (in stage order) to `path`, and beside it as .md and as .json. origins: stage name ->
    "made now", "prebuilt" ..."""
    from spoutnik.recipe.report_plots import (  # matplotlib is slow to import: not before it is needed
        control_of,
        draw_graph,
        panels,
    )

    extras = extras or Extras()
    table, sentences, about = rows(artifacts, origins), summary(artifacts, origins), facts(artifacts)
    pairs = [*paired_with_start(artifacts), *paired_with_root(artifacts)]
    curves = [(artifact, panels(artifact, control_of(artifact, artifacts), extras.other_seeds.get(artifact.stage, ())))
              for artifact in artifacts]
    bill = bill_rows(artifacts, origins, extras.bill)
    bill.append(total_row(bill, extras.bill))
    protocol = next((a.evaluation["protocol"] for a in artifacts if a.evaluation), None)  # the same for every stage
    problems, along = read_problems(artifacts), [(a, read_along(a)) for a in artifacts if a.along]
    page = _environment().get_template("report.html.jinja").render(
        recipe_name=recipe_name, recipe_text=recipe_text, summary=sentences, facts=about, rows=table,
        families=families_of(table), best=best_values(table), protocol=protocol, pairs=pairs, audits=extras.audits,
        graph=draw_graph(artifacts), rl_curves=[(a, plots) for a, plots in curves if plots and a.kind == "grpo"],
        supervised_curves=[(a, plots[0]) for a, plots in curves if plots and a.kind != "grpo"],
        seeds={stage: len(others) + 1 for stage, others in extras.other_seeds.items()},
        problems=problems, along=along, open_samples=OPEN_SAMPLES, bill=bill, prices=extras.bill, artifacts=artifacts,
        origins=origins, beside=path.stem)
    write_text(path, page)
    write_text(path.with_suffix(".md"), as_markdown(recipe_name, sentences, about, table, pairs, bill, extras.bill))
    write_json(path.with_suffix(".json"), {
        "recipe": recipe_name, "summary": sentences, "facts": about, "protocol": protocol, "stages": as_json(table),
        "differences": [vars(pair) for pair in pairs], "bill": [_plain(asdict(row)) for row in bill],
        "audits": [report.as_json() for report in extras.audits], "logs": {a.stage: a.log for a in artifacts if a.log},
        "other_seeds": {stage: [{"seed": other.manifest["seed"], "log": other.log} for other in others]
                        for stage, others in extras.other_seeds.items()},
        "samples": [asdict(problem) for problem in problems],
        "along": {a.stage: [asdict(problem) for problem in followed] for a, followed in along}})


def _plain(value: dict) -> dict:
    """A bill's row as JSON has it, which knows no infinity."""
    point = value.get("point")
    if point and math.isinf(point["high"]):
        value = value | {"point": point | {"high": None}}
    return value


def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("spoutnik.recipe", "."), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, finalize=printable)
    environment.filters |= {"percent": percent, "duration": duration, "clock": clock, "count": count, "unbroken": unbroken,
                            "helpful_percent": helpful_percent, "points": points, "energy": energy_text, "money": money_text,
                            "point_cost": point_text, "wasted": wasted_text}
    return environment


def unbroken(text: str) -> str:
    """No line break between a number and its unit."""
    return re.sub(r"(?<=\d) (?=(%|h|min|s)(\W|$))", "\u00a0", text)


def printable(value: object) -> object:
    """Text with its control characters made visible: a young model writes any byte, and HTML forbids some."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(character if character in "\n\t" or character.isprintable() else _visible(ord(character))
                   for character in value)


def _visible(code: int) -> str:
    """The control picture of an ASCII control character; spaces stay; else the replacement character."""
    if code < 0x20:
        return chr(0x2400 + code)
    return chr(code) if chr(code).isspace() and code > 0x9F else "\ufffd"


def facts(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Date, seed, code and machine of the run; several where its stages come from several runs."""
    manifests = [artifact.manifest for artifact in artifacts]

    def all_of(values) -> str:
        return "; ".join(dict.fromkeys(str(value) for value in values))

    machines = [manifest["machine"] for manifest in manifests]
    written = [(artifact.folder / "manifest.json").stat().st_mtime for artifact in artifacts]
    date = {"last stage made": f"{datetime.fromtimestamp(max(written), UTC):%Y-%m-%d %H:%M} UTC"} if written else {}
    return date | {"seed": all_of(manifest["seed"] for manifest in manifests),
                   "code": all_of(f"Spoutnik {manifest['code_version']}" for manifest in manifests),
                   "torch": all_of(manifest["torch"] for manifest in manifests),
                   "machine": all_of(f"{m['cpu']}, {m['cores']} cores, {m['system']}{', ' + m['gpu'] if 'gpu' in m else ''}"
                                     + (f", {m['processes']} processes" if "processes" in m else "") for m in machines)}


def summary(artifacts: Sequence[Artifact], origins: dict[str, str]) -> list[str]:
    """Sentences: what each RL stage did, the last model against the base, the student, the cost."""
    table = {row.stage: row for row in rows(artifacts, origins)}
    starts = {artifact.stage: artifact.inputs.get("start") for artifact in artifacts}
    evaluated = [row for row in table.values() if row.accuracy]
    pairs = {pair.b: pair for pair in paired_with_start(artifacts)}
    sentences = [_change(table[starts[row.stage]], row, pairs.get(row.stage)) for row in evaluated
                 if row.kind == "grpo" and starts[row.stage] in table and table[starts[row.stage]].accuracy]
    sentences += _standing(evaluated, table, starts)
    if not evaluated:
        sentences.append("No stage of this run has been evaluated.")
    return [*sentences, _cost_sentence(artifacts, origins)]


def _change(before: StageRow, after: StageRow, pair: Pair | None) -> str:
    """What a stage did to accuracy and to the length of thoughts. pair: both on the same problems, which says more than their
    two intervals do: of one model's difference from another they are too wide."""
    was, now = percent(before.accuracy.mean), percent(after.accuracy.mean)
    overlap = before.accuracy.low <= after.accuracy.high and after.accuracy.low <= before.accuracy.high
    chance = overlap if pair is None else not pair.is_shown
    if was == now:
        text = f"{after.stage} left pass@1 on held-out problems at {now} %"
    else:
        verb = "raised" if after.accuracy.mean > before.accuracy.mean else "lowered"
        notes = [f"on the same problems {points(pair)} points"] if pair else ["the 95 % intervals overlap"] if overlap else []
        notes += ["it may be chance"] if chance else []
        text = (f"{after.stage} {verb} pass@1 on held-out problems from {was} % to {now} %"
                + (f" ({': '.join(notes)})" if notes else ""))
    old, new = round(before.thought_tokens), round(after.thought_tokens)
    if new < SHRUNK * old and chance:
        return (f"{text}; thoughts shrank from {old} to {new} tokens while accuracy did not move beyond chance: rewards of "
                "form alone do that.")
    if old == new:
        return f"{text}; thoughts stayed at {new} tokens."
    return f"{text}; thoughts {'grew' if new > old else 'shrank'} from {old} to {new} tokens."


def _standing(evaluated: Sequence[StageRow], table: dict[str, StageRow], starts: dict[str, str | None]) -> list[str]:
    """The last model of the main line against the base it comes from, and the student against both."""
    main = [row for row in evaluated if row.kind not in ("pretrain", "midtrain", "distill")]
    if not main:
        return [f"{row.stage} answers {percent(row.accuracy.mean)} % of held-out problems right (95 % interval "
                f"{percent(row.accuracy.low)} to {percent(row.accuracy.high)})." for row in evaluated]
    last, sentences = main[-1], []
    text = f"The last model, {last.stage}, answers {percent(last.accuracy.mean)} % of held-out problems right"
    root = last.stage
    while starts.get(root):
        root = starts[root]
    base = table.get(root)
    if base and base.accuracy and root != last.stage:
        share = percent(base.accuracy.mean)
        text += (f", {last.accuracy.mean / base.accuracy.mean:.1f} times the base model's {share} %"
                 if base.accuracy.mean else f"; the base model, {share} %")
    sentences.append(text + ".")
    for row in evaluated:
        if row.kind == "distill":
            own = table.get(starts[row.stage] or "")
            compared = f"from its own base model's {percent(own.accuracy.mean)} %, " if own and own.accuracy else ""
            sentences.append(f"The student {row.stage} reaches {percent(row.accuracy.mean)} %, {compared}"
                             f"beside {last.stage}'s {percent(last.accuracy.mean)} %.")
    return sentences


def _cost_sentence(artifacts: Sequence[Artifact], origins: dict[str, str]) -> str:
    making = sum((artifact.cost for artifact in artifacts), Cost())
    evaluating = sum((artifact.evaluation_cost for artifact in artifacts), Cost())
    noun = "the stage" if len(artifacts) == 1 else f"the {len(artifacts)} stages"
    text = f"Making {noun} took {duration(making.seconds)} ({duration(making.core_seconds)} of processor time)"
    if evaluating.seconds:
        text += f", evaluating {duration(evaluating.seconds)} more"
    shipped = [artifact.stage for artifact in artifacts if origins.get(artifact.stage) == "prebuilt"]
    if shipped:
        text += f"; this counts what the prebuilt stages ({', '.join(shipped)}) took when they were made"
    return text + "."


@dataclass(frozen=True)
class Attempt:
    """What one stage answered. verdict: "right", "wrong" or "no answer" (the reply was malformed)."""

    stage: str
    kind: str
    thought: str
    answer: str
    verdict: str


@dataclass(frozen=True)
class SampledProblem:
    family: str
    level: int
    language: str
    prompt: str
    expected: str
    attempts: list[Attempt]


def read_along(artifact: Artifact) -> list[SampledProblem]:
    """An RL stage's validation problems whose replies were kept, each answered from the start of the training to its end."""
    problems: dict[tuple, SampledProblem] = {}
    for row in artifact.along:
        identity = tuple(row[key] for key in ("task", "level", "language", "prompt", "gold"))
        attempt = Attempt(f"step {row['step']}", f"{row['thought_tokens']} tokens of thought", row["thought"], row["answer"],
                          _verdict(row))
        problems.setdefault(identity, SampledProblem(*identity, [])).attempts.append(attempt)
    return list(problems.values())


def _verdict(row: dict) -> str:
    return "right" if row["correct"] else "wrong" if row["well_formed"] else "no answer"


def _first_samples(rows: Sequence[dict]) -> Iterator[dict]:
    """The first sample of the first two problems of each task."""
    seen = Counter()
    for row in rows:
        if row["sample"] == 0 and seen[row["task"]] < SHOWN_PROBLEMS:
            seen[row["task"]] += 1
            yield row


def read_problems(artifacts: Sequence[Artifact]) -> list[SampledProblem]:
    """The first two problems of every family with each stage's first sample: the first of every family, then the second ones.

    In the order of the evaluation; nothing is picked by how it came out.
    """
    problems: dict[tuple, SampledProblem] = {}
    for artifact in artifacts:
        for row in _first_samples(artifact.samples):
            identity = tuple(row[key] for key in ("task", "level", "language", "prompt", "gold"))
            problems.setdefault(identity, SampledProblem(*identity, [])).attempts.append(
                Attempt(artifact.stage, artifact.kind, row["thought"], row["answer"], _verdict(row)))
    by_family: dict[str, list[SampledProblem]] = {}
    for problem in problems.values():
        by_family.setdefault(problem.family, []).append(problem)
    return [problem for turn in zip_longest(*by_family.values()) for problem in turn if problem is not None]
