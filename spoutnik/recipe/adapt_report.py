"""What `spoutnik adapt` says at its end: the table of before and after, the report in Markdown, the commands to go on."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spoutnik.evals.saved import Row
from spoutnik.evals.scores import by_problem
from spoutnik.evals.statistics import amount_interval, difference_interval
from spoutnik.recipe.adapt_data import AdaptData
from spoutnik.recipe.adapt_options import AdaptOptions
from spoutnik.recipe.adapters import ADAPTER
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.forgetting import GeneralText
from spoutnik.units import duration, size

NOTE = "Problems and replies are those of the held-out part, general texts of {general}; losses and KL in nats a token."
_FEW_CUT = 0.1  # of the replies
FORGOTTEN = 0.05  # nats per token of general text: a rise that is worth a word


@dataclass(frozen=True)
class Measured:
    """One row of the table. unit: "%" (values are shares) or "nats". better: 1 where more is better, -1 where less is. low,
    high: 95 % interval of the difference over the `count` problems or texts; nan where there are too few."""

    what: str
    unit: str
    better: int
    count: int
    before: float
    after: float
    difference: float
    low: float
    high: float

    def as_json(self) -> dict:
        """The fields; None for what has no value."""
        return {name: None if value != value else value for name, value in vars(self).items()}

    def cells(self) -> tuple[str, str, str, str]:
        """As the table shows it."""
        if self.unit == "%":
            numbers = [f"{100 * value:.1f} %" for value in (self.before, self.after)]
            change, bounds = f"{100 * self.difference:+.1f}", [f"{100 * value:+.1f}" for value in (self.low, self.high)]
        else:
            numbers = [f"{value:.3f}" for value in (self.before, self.after)]
            change, bounds = f"{self.difference:+.3f}", [f"{value:+.3f}" for value in (self.low, self.high)]
        interval = f" ({bounds[0]} to {bounds[1]})" if self.low == self.low else ""
        return self.what, *numbers, change + interval


def measured_rows(before: Sequence[Row], after: Sequence[Row], measured: dict, data: AdaptData,
                  general: GeneralText) -> list[Measured]:
    """The table. before, after: samples of the held-out problems; measured: losses of texts under both models."""
    rows = []
    if before:
        grades = [{key: _mean([sample["correct"] for sample in samples]) for key, samples in by_problem(each).items()}
                  for each in (before, after)]
        pairs = [(grades[0][key], grades[1][key]) for key in grades[0]]
        rows.append(_row(f"right answers, {len(pairs)} problems", "%", 1, pairs))
    replies = measured["replies"]
    if data.method == "dpo":
        better, worse = replies.values()
        pairs = [tuple(float(better[when][place] < worse[when][place]) for when in ("before", "after"))
                 for place in range(len(better["before"]))]
        rows.append(_row(f"better reply likelier, {len(pairs)} pairs", "%", 1, pairs))
    for name, losses in replies.items():
        pairs = list(zip(losses["before"], losses["after"]))
        rows.append(_row(f"loss, {len(pairs)} {name}", "nats", 1 if "worse" in name else -1, pairs))
    texts = measured["general"]
    rows.append(_row(f"loss, {len(general.pieces)} general texts", "nats", -1, list(zip(texts["before"], texts["after"]))))
    rows.append(_row("KL to the base on these", "nats", -1, [(0.0, kl) for kl in texts["kl"]]))
    return rows


def _row(what: str, unit: str, better: int, pairs: Sequence[tuple[float, float]]) -> Measured:
    before, after = (_mean(values) for values in zip(*pairs))
    difference, low, high = (difference_interval if unit == "%" else amount_interval)([new - old for old, new in pairs])
    return Measured(what, unit, better, len(pairs), before, after, difference, low, high)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def verdicts(rows: Sequence[Measured]) -> list[str]:
    """Sentences on what the table shows: only differences whose interval leaves 0 out are called such."""
    sentences = []
    for row in rows[:-2]:
        what = row.what
        verdict = "better" if row.difference * row.better > 0 else "worse"
        sentences.append(f"{what[:1].upper()}{what[1:]}: " + (
            f"{verdict} than before." if row.low > 0 or row.high < 0 else
            "no difference is shown; more held-out rows would tell."))
    general = rows[-2]
    if general.difference > FORGOTTEN and general.low > 0:
        sentences.append(f"General text has become harder to predict by {general.difference:.2f} nats a token: something was "
                         "forgotten. Fewer epochs or a lower learning rate forget less.")
    else:
        sentences.append("General text is predicted about as well as before.")
    return sentences


def cut_replies(samples: Sequence[Row], whose: str, max_tokens: int) -> str:
    """A sentence where more than a few replies were cut, which nobody can grade; else "". whose: as in "of the base"."""
    cut = sum(not sample["finished"] for sample in samples)
    if cut <= _FEW_CUT * len(samples):
        return ""
    return (f"{cut:,} of {len(samples):,} replies {whose} were cut at {max_tokens:,} tokens and count as wrong, whatever they "
            "would have come to: a model that thinks or talks at length needs a larger --max-tokens, and another --out.")


def next_commands(options: AdaptOptions, out: Path, artifact: Artifact) -> dict[str, str]:
    """What to type next: label -> command."""
    model, folder = shlex.quote(options.model), shlex.quote(str(out))
    commands = {"talk to it": f"spoutnik chat {folder}"}
    if not options.full:
        adapter = shlex.quote(str(artifact.folder / ADAPTER))
        commands = {"talk to it": f"spoutnik chat {model} --adapter {adapter}",
                    "serve it": f"spoutnik serve {model} --adapter {adapter}",
                    "for PEFT, vLLM": f"spoutnik export {model} --adapter {adapter} --format lora"}
    return commands | {"for llama.cpp, Ollama": f"spoutnik export {folder} --format gguf --dtype q8_0",
                       "the same by hand": f"spoutnik run {shlex.quote(str(out / 'recipe.yaml'))} --out ANOTHER"}


def report_text(options: AdaptOptions, said: Sequence[str], rows: Sequence[Measured], general: GeneralText,
                artifact: Artifact, commands: dict[str, str], recipe: str, cut: Sequence[str] = ()) -> str:
    """The report, Markdown. cut: sentences on replies that were."""
    manifest, cost, evaluation = artifact.manifest, artifact.cost, artifact.evaluation_cost
    table = ["| | before | after | difference (95 % interval) |", "|---|---:|---:|---|"]
    table += [f"| {' | '.join(row.cells())} |" for row in rows]
    machine = manifest["machine"]
    bill = [f"Training took {duration(cost.seconds)} ({duration(cost.core_seconds)} of processor time) for "
            f"{cost.tokens_trained:,} tokens trained" + (f" and {cost.tokens_generated:,} sampled" if cost.tokens_generated
                                                         else "")
            + f"; the evaluation of the result {duration(evaluation.seconds)}. Peak memory {size(cost.peak_memory_bytes)}.",
            f"{machine['cpu']}, {machine['cores']} cores, computed in {manifest['dtype']}; Spoutnik "
            f"{manifest['code_version']}."]
    if (parameters := manifest["metrics"].get("adapter_parameters")) is not None:
        bill.append(f"The adapter has {parameters:,} parameters and lies in `{artifact.folder / ADAPTER}`.")
    health = manifest["health"]
    notes = [f"* {finding}" for finding in (health["line"], *health.get("warnings", ())) if finding]
    parts = [f"# {options.model}, adapted to {options.data.name}", "\n".join(table),
             NOTE.format(general=general.name), " ".join([*verdicts(rows), *cut]),
             "## Data", "\n".join(f"* {sentence}" for sentence in said),
             "## Training", "\n".join([*(f"* {line}" for line in bill), *notes]),
             "Curves, thoughts before and after: report.html in this folder.", "## Go on",
             "\n".join(f"* {label}: `{command}`" for label, command in commands.items()), "## Recipe",
             f"```yaml\n{recipe.rstrip()}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"
