"""`spoutnik adapt`: data, recipe, plan, the model as it is, training, what was learned and what was forgotten.

    recipe.yaml    the recipe, which `spoutnik run` takes like any other       data/        problems made of the data
    adapt.json     the command and its data's hashes: the same one goes on     measured.json, report.md
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json, write_json, write_text
from spoutnik.hardware import available_memory, compute_device
from spoutnik.loading import load_tokenizer
from spoutnik.locate import locate
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.recipe.adapt_data import METHODS, PREFERENCES, AdaptData, read_adapt_data
from spoutnik.recipe.adapt_options import AdaptOptions, slug
from spoutnik.recipe.adapt_recipe import ADAPTED, BASE, askable, check_verifier, choose_lengths, recipe_text, write_recipe
from spoutnik.recipe.adapt_record import RECORD, keep_record, kept_share
from spoutnik.recipe.adapt_report import Measured, cut_replies, measured_rows, next_commands, report_text
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.audit import UnfitVerifiers, audit_rewards
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.forgetting import PIECE, GeneralText, measure_forgetting, read_general
from spoutnik.recipe.plan import Plan, comparison_seconds, plan_recipe
from spoutnik.recipe.run import Display, evaluated, run_recipe
from spoutnik.recipe.schema import Recipe, load_recipe
from spoutnik.recipe.starts import published_starts
from spoutnik.tasks.own import ScriptTask
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.anchor_texts import general_files
from spoutnik.train.data.preferences import fit_preferences, reply_rows
from spoutnik.train.data.preview import Rendered, length_table, render_all, render_trace, template_notes
from spoutnik.train.monitor import document_losses
from spoutnik.train.preferences import Pair
from spoutnik.train.sft import MEASURED, held_out_documents
from spoutnik.train.traces import Traces
from spoutnik.units import duration, size

_MEASURED, REPORT = "measured.json", "report.md"


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
    out = out or Path("runs") / slug(options.data)
    share = kept_share(options, out) or options.held_out_share
    data = read_adapt_data(options.data.expanduser(), options.method, options.verifier, options.columns, options.learn, share)
    options.check_method(data.method)
    folder = locate(options.model, weights=False)
    tokenizer, config = load_tokenizer(folder), ModelConfig.load(folder)
    if tokenizer.chat_template is None:
        raise UserError(f"{options.model}: has no chat template, and an adapted model converses. Take the instruct model, put "
                        "its chat_template.jinja into the folder, or write a recipe with template: r1-zero "
                        "(docs/checkpoints.md).")
    positions = config.max_position_embeddings
    _check_anchor(options.anchor)
    data = askable(data, tokenizer, positions)
    general = read_general(options.general, tokenizer, positions)
    rendered = [] if data.traces is None else render_all(_as_traces(data), tokenizer, positions)
    said = _sentences(data, tokenizer, positions, rendered)
    if general.is_cut:
        said.append(f"--general {options.general}: its first {len(general.pieces)} pieces of at most {PIECE} tokens are what "
                    "forgetting is measured on.")
    for sentence in said:
        say(sentence)
    _refuse_unlearnable(data, rendered, tokenizer, positions)
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
            _audit(recipe, data, options)
        except UserError as error:
            raise UserError(_in_words_of_the_command(str(error)).replace(str(place), str(out))) from error
        before = comparison_seconds(recipe, ADAPTED, str(out / "recipe.yaml"), general.tokens)
    prepared = Prepared(options, out, data, tokenizer, general, said, recipe_text(options, data, lengths, out.absolute()), plan,
                        before)
    refuse_too_large(prepared)
    return prepared


def _in_words_of_the_command(sentence: str) -> str:
    """A setting of the recipe, which nobody has written yet, as the option that it came from."""
    named = re.sub(r"\S*recipe\.yaml(?:, line \d+)?: stages\.adapted\.(?:adapter|settings)\.(\w+) = ",
                   lambda match: f"--{match[1].replace('_', '-')} ", sentence)
    return named.replace(", or leave such maps out (target_modules)", "")


def _audit(recipe: Recipe, data: AdaptData, options: AdaptOptions) -> None:
    """Audits the verifier that grpo rewards by, before anything is written: a mended one begins in the same folder. The run
    of the recipe says that it passed.

    Raises:
        UserError: it is not fit to train on.
    """
    for task in recipe.tasks_of(recipe.stages[ADAPTED]):
        if isinstance(task, ScriptTask):
            task.script.path = Path(str(options.verifier)).expanduser()  # what it says names the user's file, not the copy
    try:
        audit_rewards(recipe, "", [ADAPTED], lambda line: None)
    except UnfitVerifiers as error:
        names = {"script": f"--verifier {options.verifier}", "rows": f"{data.path}: the verifiers of its rows"}
        whose = names.get(data.verifier.kind, f"{data.path}: the verifier {data.verifier.name} of its answers")
        more = f" `spoutnik audit {data.path}` shows more." if data.verifier.kind == "rows" else ""
        refusals = " ".join(refusal for report in error.reports for refusal in report.refusals)
        raise UserError(f"{whose}: not fit to train on. {refusals}{more} Mend it, give another one, or train on it all the "
                        'same and say why: --exempt "the reason".') from error


def _check_anchor(path: Path | None) -> None:
    """Raises UserError where there is no such text."""
    try:
        _ = path and general_files(path)
    except UserError as error:
        raise UserError(f"--anchor {error}") from error


def _refuse_unlearnable(data: AdaptData, rendered: Sequence[Rendered], tokenizer: Tokenizer, positions: int) -> None:
    """Raises UserError where the stage would find no reply to learn, or none to measure: now, not after the model was asked."""
    if data.method != "grpo" and not any(each.fits for each in rendered):
        raise UserError(f"{data.path}: the model can learn none of the rows to train on, for the reasons above. Mend them, or "
                        "take a model with more positions.")
    if data.method == "sft" and not any(render_trace(row, tokenizer, positions).fits for row in data.held_out.rows):
        raise UserError(f"{data.path}: none of the held-out rows can be measured: each is longer than the model's "
                        f"{positions:,} positions, or refused by its chat template. Shorten them, or give another "
                        "--held-out-share.")


def _as_traces(data: AdaptData) -> Traces:
    """Of preferences each reply by itself, with a report of its own: their stage counts whole ones."""
    if data.method not in PREFERENCES:
        return data.traces
    return Traces.of(data.path.name, reply_rows(data.traces.rows))


def _sentences(data: AdaptData, tokenizer: Tokenizer, positions: int, rendered: Sequence) -> list[str]:
    said = [data.shape + "."]
    if data.traces is not None:
        said.append(data.traces.report.sentence(positions).removesuffix(".") + ".")
        if lengths := length_table(rendered).get("tokens"):
            said.append("Tokens of a trace: " + ", ".join(f"{label} {value:,}" for label, value in lengths.items())
                        + f" (the model has {positions:,} positions).")
        said += [f"Note: {note}" for note in template_notes(_as_traces(data).rows, tokenizer)]
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


def adapt(prepared: Prepared, display: Display, accept: bool = False) -> Adaptation:
    """Does what was prepared, or goes on with it.

    Raises:
        RunError: the stage failed, or another run works in the folder; what was finished before it stays.
    """
    out, run = prepared.out, RunFolder(prepared.out)
    path = out / "recipe.yaml"
    with run.lock():
        if not (out / RECORD).exists():
            write_recipe(prepared.recipe, prepared.data, out)
            keep_record(prepared.options, prepared.data.share, out)
        recipe = load_recipe(path)
        start = published_starts(recipe.used_checkpoints, str(path))[BASE]
        if recipe.tasks_of():
            with display.stage(BASE, "evaluation", 1, 2) as reporter:
                start = evaluated(recipe, recipe.stages[ADAPTED], start, run, reporter)
            if cut := cut_replies(start.samples, "of the model as it is", recipe.evaluation.max_tokens):
                display.log(f"Warning: {cut}")
            if prepared.data.method == "grpo" and not any(sample["correct"] for sample in start.samples):
                display.log(f"Warning: the model as it is answers none of {len(start.samples)} held-out problems. Where no "
                            "reply is right, there is nothing to reward: teach it some with --method sft first.")
    artifact = _run(path, out, display, accept)
    with run.lock():
        measured = _measure(prepared, recipe, start, artifact, display)
        rows = measured_rows(start.samples, artifact.samples, measured, prepared.data, prepared.general)
        commands = next_commands(prepared.options, out, artifact)
        cut = [sentence for each, whose in ((start, "of the model as it was"), (artifact, "of the adapted model"))
               if (sentence := cut_replies(each.samples, whose, recipe.evaluation.max_tokens))]
        write_text(out / REPORT, report_text(prepared.options, prepared.said, rows, prepared.general, artifact, commands,
                                           path.read_text(), cut))
    return Adaptation(out, prepared.data.method, rows, artifact, commands, out / REPORT)


def _run(path: Path, out: Path, display: Display, accept: bool) -> Artifact:
    """The stage's artifact. Raises RunError where it is refused, with the words of this command."""
    try:
        return run_recipe(path, out, display, accept=[ADAPTED] if accept else ()).artifacts[0]
    except RunError as error:
        raise RunError(str(error).replace("Change the recipe and run again", "Give other options and another --out")
                       .replace(f"--accept {ADAPTED}", "--accept")) from error


def _measure(prepared: Prepared, recipe: Recipe, start: Artifact, artifact: Artifact, display: Display) -> dict:
    """Losses of the base and of what was made of it: of the held-out replies, and of the general text. Kept in the run."""
    path, asked = prepared.out / _MEASURED, [start.content, artifact.content]
    if path.exists() and (kept := read_json(path))["of"] == asked:
        return kept
    display.log("Measuring what was learned and what was forgotten.")
    device = compute_device(recipe.device)
    dtype = recipe.computes_in()
    before, after = (load_model(each.folder, None, dtype, mapped=True).to(device) for each in (start, artifact))
    measured = {"of": asked, "replies": _reply_losses(prepared, recipe.seed, before, after),
                "general": vars(measure_forgetting(before, after, prepared.general))}
    write_json(path, measured)
    return measured


def _reply_losses(prepared: Prepared, seed: int, before: Transformer, after: Transformer) -> dict[str, dict[str, list[float]]]:
    """What replies -> their losses "before" and "after", of what is held out. Of problems alone there are none."""
    data, positions = prepared.data, before.config.max_position_embeddings
    if data.held_out is None or data.method == "grpo":
        return {}
    if data.method == "sft":
        documents = {"held-out replies": held_out_documents(data.held_out, prepared.tokenizer, positions, seed)}
    else:
        examples = fit_preferences(data.held_out, prepared.tokenizer, positions)[:MEASURED]
        sides = [(each.chosen, each.rejected) if isinstance(each, Pair) else
                 (each.document, None) if each.good else (None, each.document) for each in examples]
        documents = {f"held-out {name} replies": [document for document in side if document is not None]
                     for name, side in zip(("better", "worse"), zip(*sides))}
    tokens = prepared.options.micro_batch_tokens
    return {what: {"before": document_losses(before, some, tokens), "after": document_losses(after, some, tokens)}
            for what, some in documents.items() if some}
