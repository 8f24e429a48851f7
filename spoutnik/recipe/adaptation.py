"""`spoutnik adapt`: data, recipe, plan, the model as it is, training, what was learned and what was forgotten.

    recipe.yaml    the recipe, which `spoutnik run` takes like any other       data/        problems made of the data
    adapt.json     the command and its data's hashes: the same one goes on     measured.json, report.md
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import read_json, sha256_file, sha256_json, write_json, write_text
from spoutnik.hardware import available_memory, compute_dtype
from spoutnik.loading import load_tokenizer
from spoutnik.locate import locate
from spoutnik.model.config import ModelConfig
from spoutnik.model.weights import load_model
from spoutnik.recipe.adapt_data import METHODS, AdaptData, read_adapt_data
from spoutnik.recipe.adapt_recipe import (
    ADAPTED,
    BASE,
    AdaptOptions,
    check_verifier,
    choose_lengths,
    command_record,
    recipe_text,
    slug,
    write_recipe,
)
from spoutnik.recipe.adapt_report import Measured, measured_rows, next_commands, report_text
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.audit import audit_rewards
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.forgetting import GeneralText, measure_forgetting, read_general
from spoutnik.recipe.plan import Plan, evaluation_seconds, plan_recipe
from spoutnik.recipe.run import Display, evaluated, run_recipe
from spoutnik.recipe.schema import Recipe, load_recipe
from spoutnik.recipe.starts import published_starts
from spoutnik.row_files import files_at
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.data.preview import length_table, render_all, template_notes
from spoutnik.train.monitor import document_losses
from spoutnik.train.sft import held_out_documents
from spoutnik.units import duration, size

_RECORD, _MEASURED, REPORT = "adapt.json", "measured.json", "report.md"


@dataclass(frozen=True)
class Prepared:
    """All that is known before anything runs. said: sentences on the data, the verifier and the method. before: predicted
    seconds of asking the model as it is, and of measuring at the end."""

    options: AdaptOptions
    out: Path
    data: AdaptData
    tokenizer: Tokenizer
    general: GeneralText
    said: list[str]
    recipe: str
    plan: Plan
    before: float

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.plan.stages) + self.before

    @property
    def memory(self) -> int:
        return max(stage.peak_memory_bytes for stage in self.plan.stages)

    def plan_sentence(self) -> str:
        stage = self.plan.stages[0]
        if stage.status != "to make":
            return f"Plan: the stage is {stage.status}."
        trained, sampled = stage.tokens_trained, stage.tokens_generated
        return (f"Plan: {trained:,} tokens trained" + (f", about {sampled:,} sampled" if sampled else "")
                + f", in about {duration(self.seconds)} on this machine; up to {size(self.memory)} of memory, of which "
                f"{size(available_memory())} are free.")


@dataclass(frozen=True)
class Adaptation:
    """What came of it. rows: the table; commands: label -> what to type next."""

    out: Path
    method: str
    rows: list[Measured]
    artifact: Artifact
    commands: dict[str, str]
    report: Path


def prepare(options: AdaptOptions, out: Path | None, say: Callable[[str], None]) -> Prepared:
    """Reads and checks the data, writes the recipe in memory, and plans. Nothing is written into the run's folder.

    Raises:
        UserError: whatever is wrong with the command, the data or the model, or another command owns the folder.
    """
    options.check()
    if options.method is not None and options.method not in METHODS:
        raise UserError(f"--method {options.method}: must be {', '.join(METHODS)}.")
    data = read_adapt_data(options.data.expanduser(), options.method, options.verifier, options.columns, options.learn,
                           options.held_out_share)
    options.check_method(data.method)
    out = out or Path("runs") / slug(options.data)
    _refuse_other_run(options, out)
    folder = locate(options.model, weights=False)
    tokenizer, config = load_tokenizer(folder), ModelConfig.load(folder)
    if tokenizer.chat_template is None:
        raise UserError(f"{options.model}: has no chat template, and an adapted model converses. Take the instruct model, or "
                        "put its chat_template.jinja into the folder.")
    positions = config.max_position_embeddings
    general = read_general(options.general, tokenizer, positions)
    rendered = [] if data.traces is None else render_all(data.traces, tokenizer, positions)
    said = _sentences(data, tokenizer, positions, rendered)
    for sentence in said:
        say(sentence)
    lengths = choose_lengths(options, data, tokenizer, positions, rendered)
    with tempfile.TemporaryDirectory(prefix="spoutnik-adapt-") as temporary:
        place = Path(temporary)
        try:
            write_recipe(recipe_text(options, data, lengths, place), data, place)
            for note in check_verifier(data, place):
                said.append(note)
                say(note)
            plan = plan_recipe(place / "recipe.yaml", out, None, None, None)
            recipe = load_recipe(place / "recipe.yaml")
        except UserError as error:
            raise UserError(str(error).replace(str(place), str(out))) from error
        before = evaluation_seconds(recipe, ADAPTED, str(out / "recipe.yaml"), general.tokens)
    prepared = Prepared(options, out, data, tokenizer, general, said, recipe_text(options, data, lengths, out.absolute()), plan,
                        before)
    refuse_too_large(prepared)
    return prepared


def _sentences(data: AdaptData, tokenizer: Tokenizer, positions: int, rendered: Sequence) -> list[str]:
    said = [data.shape + "."]
    if data.traces is not None:
        said.append(data.traces.report.sentence(positions).removesuffix(".") + ".")
        if lengths := length_table(rendered).get("tokens"):
            said.append("Tokens of a trace: " + ", ".join(f"{label} {value:,}" for label, value in lengths.items())
                        + f" (the model has {positions:,} positions).")
        said += [f"Note: {note}" for note in template_notes(data.traces.rows, tokenizer)]
    if data.problems:
        said.append(f"Problems with one answer: {len(data.problems) - data.held_out_problems:,} to train on, "
                    f"{data.held_out_problems:,} held out.")
    return [*said, *data.notes, f"Method: {data.method}. Verifier: {data.verifier.sentence}."]


def refuse_too_large(prepared: Prepared) -> None:
    """Raises UserError where the plan needs more memory than there is."""
    free = available_memory()
    if prepared.memory <= free:
        return
    options = prepared.options
    remedies = ["train an adapter instead of the whole model (without --full)"] if options.full else []
    if options.micro_batch_tokens > 512:
        remedies.append(f"--micro-batch-tokens {options.micro_batch_tokens // 4}")
    remedies += ["take a smaller model", "close other programs"]
    raise UserError(f"{options.model}: to adapt it takes about {size(prepared.memory)} of memory, and {size(free)} are free. "
                    f"What helps: {', or '.join(remedies)}.")


def contents(options: AdaptOptions) -> dict[str, str]:
    """Hashes of the files that the command reads."""
    hashes = {"data": sha256_json([sha256_file(file) for file in files_at(options.data.expanduser())])}
    if options.general is not None:
        hashes["general"] = sha256_file(options.general)
    if options.verifier is not None and options.verifier.endswith(".py"):
        hashes["verifier"] = sha256_file(Path(options.verifier).expanduser())
    return hashes


def _refuse_other_run(options: AdaptOptions, out: Path) -> None:
    """Raises UserError where the folder belongs to another command, or its files have changed since."""
    RunFolder(out).refuse_foreign()
    path = out / _RECORD
    if not path.exists():
        if (out / "run.json").exists() or (out / "artifacts").exists():
            raise UserError(f"--out {out}: holds a run that `spoutnik adapt` did not begin. Name another folder.")
        return
    record = read_json(path)
    now = {"command": command_record(options), "contents": contents(options)}
    for name, value in now["command"].items():
        if (before := record["command"].get(name)) != value:
            option = "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
            raise UserError(f"--out {out}: was begun with another command ({option} was {_shown(before)}, now it is "
                            f"{_shown(value)}). Give the same one to go on, or name another folder.")
    for name, value in now["contents"].items():
        if record["contents"].get(name) != value:
            raise UserError(f"--out {out}: was begun with another content of --{name}. Put the former file back to go on, or "
                            "name another folder.")
    if record["recipe"] != sha256_file(out / "recipe.yaml"):
        raise UserError(f"{out / 'recipe.yaml'}: was changed by hand. Run it as a recipe: spoutnik run {out / 'recipe.yaml'} "
                        "--out ANOTHER.")


def _shown(value: object) -> str:
    return "not given" if value is None or value == {} else str(value)


def adapt(prepared: Prepared, display: Display, accept: bool = False) -> Adaptation:
    """Does what was prepared, or goes on with it.

    Raises:
        RunError: the stage failed, or another run works in the folder; what was finished before it stays.
    """
    out, run = prepared.out, RunFolder(prepared.out)
    path = out / "recipe.yaml"
    with run.lock():
        if not (out / _RECORD).exists():
            write_recipe(prepared.recipe, prepared.data, out)
            write_json(out / _RECORD, {"command": command_record(prepared.options), "contents": contents(prepared.options),
                                       "recipe": sha256_file(path)})
        recipe = load_recipe(path)
        audit_rewards(recipe, str(path), [ADAPTED], display.log)
        start = published_starts(recipe.used_checkpoints, str(path))[BASE]
        with display.stage(BASE, "evaluation", 1, 2) as reporter:
            start = evaluated(recipe, recipe.stages[ADAPTED], start, run, reporter)
    artifact = run_recipe(path, out, display, accept=[ADAPTED] if accept else ()).artifacts[0]
    with run.lock():
        measured = _measure(prepared, recipe, start, artifact, display)
        rows = measured_rows(start.samples, artifact.samples, measured, prepared.data, prepared.general)
        commands = next_commands(prepared.options, out, artifact)
        write_text(out / REPORT, report_text(prepared.options, prepared.said, rows, artifact, commands, path.read_text()))
    return Adaptation(out, prepared.data.method, rows, artifact, commands, out / REPORT)


def _measure(prepared: Prepared, recipe: Recipe, start: Artifact, artifact: Artifact, display: Display) -> dict:
    """Losses of the base and of what was made of it: of the held-out replies, and of the general text. Kept in the run."""
    path, asked = prepared.out / _MEASURED, [start.content, artifact.content]
    if path.exists() and (kept := read_json(path))["of"] == asked:
        return kept
    display.log("Measuring what was learned and what was forgotten.")
    dtype = compute_dtype(recipe.dtype)
    before, after = (load_model(each.folder, None, dtype, mapped=True) for each in (start, artifact))
    measured = {"of": asked, "general": vars(measure_forgetting(before, after, prepared.general))}
    if prepared.data.held_out is not None and prepared.data.method == "sft":
        documents = held_out_documents(prepared.data.held_out, prepared.tokenizer, before.config.max_position_embeddings,
                                       recipe.seed)
        tokens = prepared.options.micro_batch_tokens
        measured["held_out"] = {"before": document_losses(before, documents, tokens),
                                "after": document_losses(after, documents, tokens)}
    write_json(path, measured)
    return measured
