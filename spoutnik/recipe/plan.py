"""The plan of `spoutnik run --dry-run`: stages to run, with predicted time and memory on this machine.

A training step and a short generation of each model are timed (rehearsal.py) and scaled to each stage's tokens (work.py); for a
published checkpoint, one product is timed and scaled to its parameters (estimate.py). Core-seconds are what is predicted; the
time is that of a machine with nothing else to do. Memory is what the timed steps used and what oneDNN's compiled products
will take once all are there.
"""

import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spoutnik.hardware import compute_device
from spoutnik.model.accounting import account
from spoutnik.parallel import cores
from spoutnik.recipe.adapters import adapter_parameters, packed_savings
from spoutnik.recipe.anchors import ANCHOR_PASSES, anchor_bytes, anchor_work
from spoutnik.recipe.checks import check_recipe
from spoutnik.recipe.estimate import estimated_speed, frozen, held_bytes, keeping_seconds, opening_seconds, tree_bytes
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.keys import evaluation_protocol
from spoutnik.recipe.rehearsal import POSITIONS, TrainingStep, least_step_seconds, rehearse
from spoutnik.recipe.run import find_stages, select_stages, with_seed
from spoutnik.recipe.schema import Recipe, load_recipe
from spoutnik.recipe.stage_kinds import MidtrainStage, Stage
from spoutnik.recipe.stages import describe_model
from spoutnik.recipe.starts import published_starts
from spoutnik.recipe.work import Work, evaluation_tokens, held_out_tokens, stage_work, validation_steps, validation_tokens
from spoutnik.tables import print_table
from spoutnik.units import duration, size

START_SECONDS = 4.0  # core-seconds of a process before it computes, where each stage has one of its own
_ASKED = 1.35  # times as much for a token of an evaluation: fewer samples share a prompt than in the rehearsal
_LOADED = 0.25  # processes for each core from which on others are spoken of
_COMPILED_BYTES = 270_000  # of one compiled product in one cache (docs/results.md)


@dataclass(frozen=True)
class PlannedStage:
    """status: "already made", "prebuilt" or "to make". Seconds, tokens and bytes are predictions, of the evaluation too; 0
    where nothing runs. tokens_wasted: of those generated, in groups without variance. seconds: by the wall clock, where nothing
    else computes."""

    name: str
    kind: str
    status: str
    inputs: list[str]
    tokens_trained: int = 0
    tokens_generated: int = 0
    tokens_wasted: int = 0
    core_seconds: float = 0
    evaluation_core_seconds: float = 0
    seconds: float = 0
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    recipe: str
    out: str
    models: dict[str, str]
    stages: list[PlannedStage]
    on_gpu: bool = False
    load: float = 0.0  # of the machine when planning began: processes that computed, beside this one

    @property
    def beside(self) -> str:
        """What to say where others compute: times are those of a machine with nothing else to do."""
        if self.load < _LOADED * cores():
            return ""
        return (f", if it had nothing else to do: now {self.load:.1f} other processes compute on its {cores()} cores, and as "
                "long as they do it takes longer")

    @property
    def by_processor(self) -> str:
        """What to say of a prediction where a GPU will compute: the rehearsal is the processor's."""
        return ", by the speed of its processor: a GPU computes, which takes less" if self.on_gpu else ""

    def as_json(self) -> dict:
        return asdict(self)


def compiled_products() -> int:
    """How many oneDNN and its wrapper (once for each thread) may keep: the limits that commands/main.py sets."""
    limits = [int(os.environ.get(name, 1024)) for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")]
    return limits[0] + limits[1] * cores()


@dataclass(frozen=True)
class _Prediction:
    """core_seconds: of making a stage, and of evaluating its model. parallel: cores that work at a time."""

    making: float
    evaluating: float
    parallel: float
    memory: int


def _predict(recipe: Recipe, name: str, source: str, work: Work, validated: int, evaluated: int) -> _Prediction:
    """validated, evaluated: tokens generated while the stage is made, beside its work's, and by its model's evaluation."""
    stage, config = recipe.stages[name], recipe.config_of_stage(name, source)
    # One rehearsal serves a model and its descendants, whose contexts differ alone.
    dtype, thin = recipe.computes_in(), getattr(stage, "adapter", None)
    adapter = None if thin is None else adapter_parameters(config, thin)
    if recipe.checkpoint_of_stage(name) is None:
        speed = rehearse(config.model_copy(update={"max_position_embeddings": POSITIONS, "rope_scaling": None}), dtype,
                         _training_step(stage, work))
        speed = speed if adapter is None else frozen(speed, adapter / account(config).total_parameters)
        opening = keeping = 0.0  # small models: what they are rehearsed with takes as long
    else:
        recomputed = getattr(stage.settings, "gradient_checkpointing", False)
        speed = estimated_speed(config, dtype, _tokens_at_once(stage), adapter, recomputed)
        opening, keeping = opening_seconds(config), keeping_seconds(config, adapter)
        if work.steps:
            passes = 1 + (ANCHOR_PASSES if getattr(stage, "anchor", None) is not None else 0)
            keeping += work.steps * passes * least_step_seconds(config, dtype)
    memory = speed.peak_memory_bytes + compiled_products() * _COMPILED_BYTES + held_bytes(config, adapter)
    memory -= 0 if thin is None else packed_savings(config, thin)
    if work.trained and recipe.virtual_shards is not None:
        memory += tree_bytes(recipe.virtual_shards, config, adapter)
    if work.steps and getattr(stage, "anchor", None) is not None:
        memory += anchor_bytes(stage, config)
        work = replace(work, trained=work.trained + work.steps * anchor_work(stage))
    sampled = (work.generated + validated) / speed.generate
    trained = work.trained / speed.train if work.trained else 0
    making = trained + sampled + work.steps * speed.step[work.optimizer] + work.measured / speed.read
    if work.generated:
        making += opening + (work.decoded + validation_steps(recipe, name)) * speed.decode_step
    if work.trained:
        making += keeping
    asked = _ASKED * evaluated / speed.generate
    if evaluated:
        asked += opening + recipe.evaluation.max_tokens * speed.decode_step
    return _Prediction(making, asked, speed.parallel, memory)


def _planned(recipe: Recipe, path: Path, out: Path, name: str, status: str) -> PlannedStage:
    stage = recipe.stages[name]
    work = stage_work(recipe, name) if status == "to make" else Work()
    _, protocol = evaluation_protocol(recipe, stage)
    evaluated = status != "to make" and any((out / "evaluations").glob(f"{name}-{'?' * 12}-{protocol[:8]}"))
    asked = 0 if evaluated else evaluation_tokens(recipe, name)
    validated = validation_tokens(recipe, name) if status == "to make" else 0
    row = PlannedStage(name, stage.kind, status, list(stage.inputs.values()), work.trained, work.generated + validated + asked,
                       work.wasted)
    if not work.trained and not row.tokens_generated:
        return row
    predicted = _predict(recipe, name, str(path), work, validated, asked)
    core_seconds = predicted.making + predicted.evaluating
    return replace(row, core_seconds=core_seconds, evaluation_core_seconds=predicted.evaluating,
                   seconds=core_seconds / predicted.parallel, peak_memory_bytes=predicted.memory)


def _training_step(stage: Stage, work: Work) -> TrainingStep | None:
    """What to rehearse. Post-training by reward leaves the MTP module alone, as a weight of 0 does; conversations among short
    texts cost what padding to them does."""
    if not work.trained:
        return None
    return TrainingStep(-(-work.trained // work.steps), stage.settings.micro_batch_tokens, isinstance(stage, MidtrainStage),
                        bool(getattr(stage.settings, "mtp_loss_weight", 0)))


def making_core_seconds(recipe: Recipe, name: str, source: str) -> float:
    """Predicted for making a stage, without its evaluation."""
    return _predict(recipe, name, source, stage_work(recipe, name), validation_tokens(recipe, name), 0).making


def evaluation_core_seconds(recipe: Recipe, name: str, source: str) -> float:
    """Predicted for the evaluation of a stage's model."""
    return _predict(recipe, name, source, Work(), 0, evaluation_tokens(recipe, name)).evaluating


def comparison_seconds(recipe: Recipe, name: str, source: str, tokens_read: int) -> float:
    """Predicted for what shows that a published model was changed by a stage: it is asked what the stage's model will be, and
    both read the held-out part of the stage's file, and texts of `tokens_read` tokens."""
    config = recipe.config_of_stage(name, source)
    speed = estimated_speed(config, recipe.computes_in(), 0)
    evaluated = evaluation_tokens(recipe, name)
    asked = _ASKED * evaluated / speed.generate
    if evaluated:
        asked += opening_seconds(config) + recipe.evaluation.max_tokens * speed.decode_step
    return (asked + 2 * (tokens_read + held_out_tokens(recipe, name)) / speed.read) / speed.parallel


def _tokens_at_once(stage: Stage) -> int:
    """That one core works on: a micro-batch, or its part of a step where that is less."""
    limit, step = (getattr(stage.settings, key, 0) for key in ("micro_batch_tokens", "tokens_per_step"))
    return min(limit, -(-step // cores())) if step else limit


def plan_recipe(path: Path, out: Path, until: str | None, redo_from: str | None, seed: int | None,
                accept: Collection[str] = ()) -> Plan:
    """Raises UserError exactly where running would. accept: changes no prediction."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # before the rehearsal, which computes as well
    recipe = with_seed(load_recipe(path), seed)
    selected, redo = select_stages(recipe, path, until, redo_from, accept)
    run = RunFolder(out)
    run.refuse_foreign()
    starts = published_starts(recipe.used_checkpoints, str(path), False, recipe.start_forms)
    found, statuses = find_stages(recipe, str(path), run, selected, redo, starts)
    check_recipe(recipe, str(path), selected, found)
    planned = [_planned(recipe, path, out, name, statuses[name]) for name in selected]
    own = recipe.models.keys() - recipe.checkpoints.keys() if recipe.vocab_size is not None else ()
    models = {name: describe_model(recipe.model_config_of(name, str(path)) if name in own
                                   else recipe.config_of_checkpoint(name, str(path)))
              for name in recipe.models if name in own or name in starts}
    on_gpu = compute_device(recipe.device, f"{path}: ").type != "cpu"
    return Plan(recipe.name, str(out), models, planned, on_gpu, load)


def print_plan(plan: Plan) -> None:
    console = Console()
    wide = console.width >= 110
    for name, description in plan.models.items():
        console.print(f"{name}: {description}", highlight=False)
    table = Table(title=f"{plan.recipe} -> {plan.out} (predicted by a rehearsal on this machine)", title_justify="left",
                  padding=(0, 1, 0, 0))  # narrow enough for 80 columns
    for column in ("stage", *(("kind", "from") if wide else ()), "status"):
        table.add_column(column, no_wrap=True)
    for column in ("trained", "generated", "core s", "time", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    for stage in plan.stages:
        figures = (f"{stage.tokens_trained / 1e6:.2f}M", f"{stage.tokens_generated / 1e6:.2f}M",
                   f"{stage.core_seconds:,.0f}", duration(stage.seconds), size(stage.peak_memory_bytes))
        table.add_row(stage.name, *((stage.kind, ", ".join(stage.inputs)) if wide else ()), stage.status,
                      *(figures if stage.seconds else ()))
    print_table(console, table)
    total = sum(stage.seconds for stage in plan.stages)
    core_seconds = sum(stage.core_seconds for stage in plan.stages)
    console.print(f"Predicted: {core_seconds:,.0f} core-seconds, {duration(total)} in all{plan.by_processor}{plan.beside}. "
                  "Nothing was done.", highlight=False)
