"""The plan of `spoutnik run --dry-run`: stages to run, with predicted time and memory on this machine.

A training step and a short generation of each model are timed (a few seconds) and scaled to each stage's tokens; for a
published checkpoint, one product is timed and scaled to its parameters (estimate.py). RL's completions are taken at
TYPICAL_LENGTH of max_tokens. Memory is what the timed steps used and what oneDNN's compiled products will take once all are
there.
"""

import os
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.evals.protocol import held_out_problems
from spoutnik.hardware import compute_device, compute_dtype, peak_memory
from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import cores
from spoutnik.recipe.adapters import adapter_parameters, packed_savings
from spoutnik.recipe.anchors import anchor_bytes, anchor_work
from spoutnik.recipe.checks import check_recipe
from spoutnik.recipe.estimate import Speed, estimated_speed, frozen, held_bytes
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.keys import evaluation_protocol
from spoutnik.recipe.own_data import own_data
from spoutnik.recipe.preference_stages import DPOStage, PreferenceStage
from spoutnik.recipe.run import find_stages, select_stages, with_seed
from spoutnik.recipe.schema import (
    BaseStage,
    GRPOStage,
    MidtrainStage,
    PretrainStage,
    Recipe,
    RejectStage,
    RewardModelStage,
    SFTStage,
    Stage,
    load_recipe,
)
from spoutnik.recipe.stages import describe_model
from spoutnik.recipe.starts import published_starts
from spoutnik.tables import print_table
from spoutnik.train.batches import Document
from spoutnik.train.data.preferences import reply_rows
from spoutnik.train.language_model import language_model_gradient
from spoutnik.train.optimizer import Optimizer
from spoutnik.train.settings import LanguageModelSettings
from spoutnik.train.sft import characters
from spoutnik.units import duration, size

TYPICAL_LENGTH = 0.35  # of max_tokens
_PROMPT, _TRACE = 32, 90  # tokens: a prompt, a prompt with its trace
_CHARACTERS, _FRAME = 3, 8  # of a trace in a file: characters per token, tokens that the conversation's frame adds
_COMPILED_BYTES = 270_000  # of one compiled product in one cache (docs/results.md)


@dataclass(frozen=True)
class PlannedStage:
    """status: "already made", "prebuilt" or "to make". Seconds and bytes are predictions; 0 where nothing runs."""

    name: str
    kind: str
    status: str
    inputs: list[str]
    tokens_trained: int = 0
    tokens_generated: int = 0
    seconds: float = 0
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    recipe: str
    out: str
    models: dict[str, str]
    stages: list[PlannedStage]
    on_gpu: bool = False

    @property
    def by_processor(self) -> str:
        """What to say of a prediction where a GPU will compute: the rehearsal is the processor's."""
        return ", by the speed of its processor: a GPU computes, which takes less" if self.on_gpu else ""

    def as_json(self) -> dict:
        return asdict(self)


@cache
def rehearse(config: ModelConfig, dtype: torch.dtype) -> Speed:
    model = Transformer(config, dtype)
    model.init_weights(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    settings = LanguageModelSettings(learning_rate=1e-3)
    rows = cores() * settings.micro_batch_tokens // 96  # a whole micro-batch for each core: that is what memory is for
    ids = torch.randint(6, config.vocab_size, (rows, 96), generator=generator).tolist()
    documents = [Document(row) for row in ids]
    parameters = list(model.parameters())

    def seconds(work) -> float:
        work()  # warm: oneDNN compiles its kernels
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    trained = seconds(lambda: language_model_gradient(model, documents, parameters, settings))
    step = {}
    for name in ("adamw", "muon"):
        optimizer = Optimizer(model, name, 1e-9, 0.0, 1.0)
        gradients = [torch.zeros_like(parameter) for parameter in optimizer.parameters]
        step[name] = seconds(lambda optimizer=optimizer, gradients=gradients: optimizer.step(gradients, 1.0))
    llm, steps = LLM(model, eos_token_ids=[], max_num_seqs=640, max_num_batched_tokens=8192), 24
    prompts = [row[:_PROMPT] for row in ids]
    params = SamplingParams(n=4, temperature=1.0, top_p=1.0, max_tokens=steps)
    generated = seconds(lambda: llm.generate(prompts, params))
    return Speed(sum(map(len, ids)) / trained, len(prompts) * 4 * steps / generated, step, peak_memory())


def compiled_products() -> int:
    """How many oneDNN and its wrapper (once for each thread) may keep: the limits that commands/main.py sets."""
    limits = [int(os.environ.get(name, 1024)) for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")]
    return limits[0] + limits[1] * cores()


@dataclass(frozen=True)
class Work:
    """What making a stage takes: tokens trained and generated, and steps of its optimizer."""

    trained: int = 0
    generated: int = 0
    steps: int = 0
    optimizer: str = "adamw"


def stage_work(recipe: Recipe, name: str) -> Work:
    """The work of a stage, without its evaluation."""
    stage = recipe.stages[name]
    match stage:
        case PretrainStage(settings=s) | MidtrainStage(settings=s) | RewardModelStage(settings=s):
            return Work(s.steps * s.tokens_per_step, 0, s.steps, s.optimizer)
        case SFTStage(settings=s):
            traces = stage.general + (stage.cold_start.traces if stage.cold_start else 0)
            if stage.traces is not None:
                rejected = recipe.stages[stage.traces].settings
                traces += rejected.prompts * min(rejected.samples, rejected.keep_per_prompt) * 2 // 3
            tokens = round((traces * _TRACE + (_file_tokens(recipe, name) if stage.file is not None else 0)) * s.epochs)
            return Work(tokens, 0, -(-tokens // s.tokens_per_step), s.optimizer)
        case PreferenceStage(settings=s):
            tokens = _file_tokens(recipe, name)
            read = tokens if isinstance(stage, DPOStage) else (2 + s.epochs) * tokens  # without a gradient: a third of the work
            trained = round(s.epochs * tokens)
            filled = trained if isinstance(stage, DPOStage) else 2 * trained
            return Work(trained + round(read / 3), 0, -(-filled // s.tokens_per_step), s.optimizer)
        case GRPOStage(settings=s):
            completions = s.steps * s.prompts_per_step * s.group_size
            length = round(s.max_tokens * TYPICAL_LENGTH)
            return Work(completions * (length + _PROMPT) * 2 // 3, completions * length, s.steps, s.optimizer)
        case RejectStage(settings=s):
            return Work(generated=round(s.prompts * s.samples * s.max_tokens * TYPICAL_LENGTH))


def _file_tokens(recipe: Recipe, name: str) -> int:
    """About as many as the traces of a stage's file have, those left out that will not fit."""
    stage = recipe.stages[name]
    positions = recipe.config_of_stage(name, "the recipe").max_position_embeddings
    rows = reply_rows(own_data(stage, recipe.hygiene).train.rows)
    lengths = (characters(row) / _CHARACTERS + _FRAME for row in rows)
    return round(sum(length for length in lengths if length <= positions))


def evaluation_tokens(recipe: Recipe, name: str) -> int:
    """Generated by the evaluation of a stage's model: a base is asked in two layouts, others in conversations as well."""
    if isinstance(recipe.stages[name], RejectStage | RewardModelStage):
        return 0
    problems = len(held_out_problems(recipe.tasks_of(), recipe.evaluation.problems_per_family))
    is_base = isinstance(recipe.stages[name], BaseStage)
    dialogues = recipe.evaluation.problems_per_family if recipe.families else 0
    problems = 2 * problems if is_base else problems + dialogues
    return round(problems * recipe.evaluation.samples * recipe.evaluation.max_tokens * TYPICAL_LENGTH)


def _planned(recipe: Recipe, path: Path, out: Path, name: str, status: str) -> PlannedStage:
    stage, config = recipe.stages[name], recipe.config_of_stage(name, str(path))
    work = stage_work(recipe, name) if status == "to make" else Work()
    _, protocol = evaluation_protocol(recipe, stage)
    evaluated = status != "to make" and any((out / "evaluations").glob(f"{name}-{'?' * 12}-{protocol[:8]}"))
    generated = work.generated + (0 if evaluated else evaluation_tokens(recipe, name))
    row = PlannedStage(name, stage.kind, status, list(stage.inputs.values()), work.trained, generated)
    if not work.trained and not generated:
        return row
    # A wider context costs nothing where sequences are short: one rehearsal serves a model and its descendants.
    dtype, trained = compute_dtype(recipe.dtype), getattr(stage, "adapter", None)
    adapter = None if trained is None else adapter_parameters(config, trained)
    if recipe.checkpoint_of_stage(name) is None:
        speed = rehearse(config.model_copy(update={"max_position_embeddings": 512, "rope_scaling": None}), dtype)
        speed = speed if adapter is None else frozen(speed, adapter / account(config).total_parameters)
    else:
        recomputed = getattr(stage.settings, "gradient_checkpointing", False)
        speed = estimated_speed(config, dtype, _tokens_at_once(stage), adapter, recomputed)
    memory = speed.peak_memory_bytes + compiled_products() * _COMPILED_BYTES + held_bytes(config, adapter)
    memory -= 0 if trained is None else packed_savings(config, trained)
    if work.steps and getattr(stage, "anchor", None) is not None:
        memory += anchor_bytes(stage, config)
        work = replace(work, trained=work.trained + work.steps * anchor_work(stage))
    seconds = work.trained / speed.train + generated / speed.generate + work.steps * speed.step[work.optimizer]
    return replace(row, seconds=seconds, peak_memory_bytes=memory)


def evaluation_seconds(recipe: Recipe, name: str, source: str, tokens_read: int = 0) -> float:
    """Predicted for asking the published model that a stage starts from what the stage's own is asked. tokens_read: of texts
    that both of them read beside it."""
    config = recipe.config_of_stage(name, source)
    speed = estimated_speed(config, compute_dtype(recipe.dtype), 0)
    return evaluation_tokens(recipe, name) / speed.generate + 2 * tokens_read / (3 * speed.train)


def _tokens_at_once(stage: Stage) -> int:
    """That one core works on: a micro-batch, or its part of a step where that is less."""
    limit, step = (getattr(stage.settings, key, 0) for key in ("micro_batch_tokens", "tokens_per_step"))
    return min(limit, -(-step // cores())) if step else limit


def plan_recipe(path: Path, out: Path, until: str | None, redo_from: str | None, seed: int | None,
                accept: Collection[str] = ()) -> Plan:
    """Raises UserError exactly where running would. accept: changes no prediction."""
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
    return Plan(recipe.name, str(out), models, planned, on_gpu)


def print_plan(plan: Plan) -> None:
    console = Console()
    wide = console.width >= 110
    for name, description in plan.models.items():
        console.print(f"{name}: {description}", highlight=False)
    table = Table(title=f"{plan.recipe} -> {plan.out} (predicted by a rehearsal on this machine)", title_justify="left",
                  padding=(0, 1, 0, 0))  # narrow enough for 80 columns
    for column in ("stage", *(("kind", "from") if wide else ()), "status"):
        table.add_column(column, no_wrap=True)
    for column in ("trained", "generated", "time", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    for stage in plan.stages:
        figures = (f"{stage.tokens_trained / 1e6:.2f}M", f"{stage.tokens_generated / 1e6:.2f}M",
                   duration(stage.seconds), size(stage.peak_memory_bytes))
        table.add_row(stage.name, *((stage.kind, ", ".join(stage.inputs)) if wide else ()), stage.status,
                      *(figures if stage.seconds else ()))
    print_table(console, table)
    total = sum(stage.seconds for stage in plan.stages)
    console.print(f"Predicted: {duration(total)} in all{plan.by_processor}. Nothing was done.", highlight=False)
