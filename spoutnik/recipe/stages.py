"""One function per kind of stage: from inputs to an artifact's files. `run.py` walks the DAG."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.evals.protocol import (
    EvaluationSettings,
    accuracy_of,
    grade,
    held_out_dialogues,
    held_out_problems,
    sample_rows,
    summarize,
)
from spoutnik.files import read_jsonl, sha256_json, write_json, write_jsonl
from spoutnik.hardware import compute_device, machine
from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import has_adapters
from spoutnik.model.parts import is_divided, save_divided
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model, load_tensors, save_tensors
from spoutnik.parallel import CPU
from spoutnik.recipe.adapters import load_for_adapter, save_adapter, saved_dtype
from spoutnik.recipe.anchors import open_anchor
from spoutnik.recipe.artifacts import ALONG, Artifact, code_version
from spoutnik.recipe.cards import adapted_card, model_card
from spoutnik.recipe.keys import style_of_stage
from spoutnik.recipe.model_files import save_generation_config, save_model_files
from spoutnik.recipe.orders import refuse_other_vocabulary
from spoutnik.recipe.own_data import own_data
from spoutnik.recipe.preference_stages import DPOStage, KTOStage, PreferenceStage
from spoutnik.recipe.sampling import SAMPLERS_HERE, Samplers
from spoutnik.recipe.schema import Recipe, widened
from spoutnik.recipe.stage_kinds import GRPOStage, MidtrainStage, PretrainStage, RejectStage, RewardModelStage, SFTStage, Stage
from spoutnik.recipe.starts import name_of
from spoutnik.tasks import LANGUAGES
from spoutnik.tasks.general import content_and_form, sample_general
from spoutnik.tasks.general_text import FIRST_KINDS, taught_kinds
from spoutnik.text.thought import read_reply
from spoutnik.text.thought_format import has_plain_marks
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.anchor import Anchor
from spoutnik.train.data.preferences import fit_preferences, reply_rows
from spoutnik.train.data.preview import template_notes
from spoutnik.train.dpo import dpo
from spoutnik.train.grpo import ON_POLICY, grpo
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.health import Finding, constant_findings, kept_findings, pair_findings, stage_health
from spoutnik.train.kto import kto
from spoutnik.train.loop import Checkpoints, Cost, Progress, Stopwatch, of_all_ranks
from spoutnik.train.monitor import Monitor, Validation
from spoutnik.train.preference_outcome import HeldOut, held_out_findings, learned_findings
from spoutnik.train.pretrain import midtrain, pretrain, train_tokenizer
from spoutnik.train.prompt_style import PromptStyle, prompt_ids
from spoutnik.train.reject import reject
from spoutnik.train.resumable import KeptCalls, ResumableLLM
from spoutnik.train.reward_model import (
    RewardModel,
    accuracy_by_difference,
    best_constant,
    held_out_accuracy,
    score_answers,
    train_reward_model,
)
from spoutnik.train.rollouts import PolicyEngine, PolicySampler, rollout_llm, sample_problems
from spoutnik.train.settings import AdapterSettings
from spoutnik.train.sft import fit, general_traces, held_out_documents, held_out_loss, sft, solver_traces
from spoutnik.train.traces import KEYS, Traces, reports_of
from spoutnik.world import team, together, world

Model = TypeVar("Model", bound=nn.Module)
BEST = "best"  # folder of an RL stage's best checkpoint by validation, in its artifact, where that is not the last
PAIRS = 512  # held-out ones, on which a reward model is tested


@dataclass(frozen=True)
class Context:
    """The arguments of a stage. working: the folder its files go to; inputs: role -> finished artifact."""

    recipe: Recipe
    source: str  # the recipe's file, for error messages
    name: str
    working: Path
    inputs: dict[str, Artifact]
    progress: Callable[[str], Progress]  # for each thing the stage does
    say: Callable[[str], None] = lambda text: None  # a sentence for the person who waits
    track: Callable[[list[dict]], None] = lambda log: None  # the stage's log, after each step
    samplers: Samplers = SAMPLERS_HERE

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.working.with_name(self.working.name + ".progress"), self.recipe.checkpoint_seconds,
                           sparing="checkpoint_seconds" not in self.recipe.model_fields_set)

    @property
    def device(self) -> torch.device:
        return compute_device(self.recipe.device, f"{self.source}: ")

    @property
    def dtype(self) -> torch.dtype:
        return self.recipe.computes_in(f"{self.source}: ")

    @property
    def origin(self) -> Path | None:
        """The folder that the stage's model goes on from, where it descends from a published checkpoint."""
        return None if self.recipe.checkpoint_of_stage(self.name) is None else self.inputs["start"].folder

    def training(self, label: str = "training") -> tuple[int, str, Checkpoints, Progress]:
        """Seed, stage, checkpoints and progress: the common arguments of the training functions."""
        return self.recipe.seed, self.name, self.checkpoints, self.progress(label)

    def monitor(self, validation: Validation | None = None) -> Monitor:
        return Monitor(self.name, self.say, validation, track=self.track)

    def validation(self, model: Transformer, tokenizer: Tokenizer, settings: GRPOSettings,
                   engine: PolicySampler) -> Validation | None:
        """Of an RL stage; None where the recipe switches it off."""
        recipe, chosen = self.recipe, self.recipe.validation
        if not chosen.problems:
            return None
        rng = random.Random(f"{recipe.seed} {self.name} validation")
        problems = sample_problems(rng, recipe.tasks_of(), chosen.problems, chosen.split)
        params = SamplingParams(temperature=recipe.evaluation.temperature, top_p=recipe.evaluation.top_p,
                                max_tokens=settings.max_tokens)
        asked = sha256_json([[problem.prompt for problem in problems], str(params)])  # others are measured anew
        folder = self.checkpoints.folder / f"validation-{asked[:12]}"
        return Validation(model, tokenizer, problems, params, recipe.seed, folder, settings.steps, chosen.looks, engine,
                          settings.prompt_style, chosen.kept)

    def sampled(self, model: Transformer, tokenizer: Tokenizer) -> AbstractContextManager[PolicySampler]:
        """What samples a model while the stage works on it."""
        return self.samplers.open(model, tokenizer, self.recipe.scale, self.checkpoints.folder, self.say)

    def load(self, role: str = "start") -> tuple[Transformer, Tokenizer]:
        """The model and tokenizer of an input."""
        model, tokenizer = self.read(role)
        return model.to(self.device), tokenizer

    def read(self, role: str = "start") -> tuple[Transformer, Tokenizer]:
        """The same, to be `placed`: a model that is to be divided need not fit on one GPU before."""
        folder = self.inputs[role].folder
        return load_model(folder, compute_dtype=self.dtype), Tokenizer.load(folder)

    def load_start(self, adapter: AdapterSettings | None) -> tuple[Transformer, Tokenizer]:
        """The model to train: whole, or frozen as its files hold it with a new adapter."""
        folder, where = self.inputs["start"].folder, f"{self.source}: stages.{self.name}.adapter"
        if adapter is not None:
            device = torch.device("cpu") if self._divides else self.device
            model = load_for_adapter(folder, adapter, self.dtype, self.recipe.seed, where, device)
        elif self._divides:  # left in its file, of which each process reads its rows
            model = load_model(folder, None, self.dtype, mapped=True)
        else:
            model = load_model(folder, compute_dtype=self.dtype)
        return self.placed(model), Tokenizer.load(folder)

    @property
    def _divides(self) -> bool:
        return self.recipe.scale is not None and self.recipe.scale.shard and world().divides

    def placed(self, model: Model) -> Model:
        """The same, on the device that trains it; divided among the processes where the recipe says so."""
        if not self._divides:
            return model.to(self.device)
        scale = self.recipe.scale
        world().divide(model, self.device.type, scale.expert_parallel, scale.parameters, f"{self.source}: scale")
        return model

    def anchor(self, model: Transformer, tokenizer: Tokenizer) -> Anchor | None:
        """Of the stage, whose model is to be trained; None where it has none."""
        start = self.inputs["start"].folder
        anchor = open_anchor(self.recipe, self.name, model, tokenizer, start, self.dtype, self.say)
        if anchor is not None and anchor.base is not None:
            self.placed(anchor.base)
        return anchor


@dataclass
class Outcome:
    """metrics, cost and data (what became of each source of traces) for the manifest; log rows; the trained model, where the
    stage makes one. monitor: what looked on while it was trained. findings: on what the stage made, beside those of its log."""

    metrics: dict[str, float]
    cost: Cost
    log: list[dict]
    model: Transformer | None = None
    tokenizer: Tokenizer | None = None
    monitor: Monitor | None = None
    findings: list[Finding] = field(default_factory=list)
    data: list[dict] = field(default_factory=list)


def run_stage(stage: Stage, context: Context) -> dict:
    """Does the stage and leaves all files in `context.working`; returns the manifest's part."""
    outcome = perform(stage, context)
    if outcome.log:
        write_jsonl(context.working / "log.jsonl", outcome.log)
    if outcome.model is not None:
        (dtype, left), model = saved_dtype(outcome.model, context.dtype), outcome.model
        if left is not None:
            checkpoint = context.recipe.checkpoints.get(stage.start)
            base = f"{context.recipe.name}/{stage.start}" if checkpoint is None else name_of(checkpoint)
            metrics, model = save_adapter(context.working, model, stage.adapter, dtype, left, base, context.say)
            outcome.metrics |= metrics
        _save(context.working, model, outcome.tokenizer, context.origin, dtype)
    validation = outcome.monitor.validation if outcome.monitor else None
    if validation is not None and (best := validation.best_model()) is not None:
        _save(context.working / BEST, best, outcome.tokenizer, context.origin, dtype)
    if validation is not None and (rows := validation.along()):
        write_jsonl(context.working / ALONG, rows)
    is_control = isinstance(stage, GRPOStage) and stage.settings.is_control
    health = stage_health(outcome.log, outcome.monitor.comparisons if outcome.monitor else (), outcome.findings, is_control)
    description = {"kind": stage.kind, "metrics": outcome.metrics, "bill": vars(outcome.cost),
                   "machine": machine(context.device) | ({"processes": team().size} if team().size > 1 else {}),
                   "dtype": str(context.dtype).removeprefix("torch."), "health": health}
    if outcome.data:
        description["data"] = outcome.data
    if validation is not None:
        description["validation"] = validation.summary(BEST)
    if outcome.model is None:
        return description
    return description | {"card": _card(stage, context, outcome.model, outcome.tokenizer)}


def perform(stage: Stage, context: Context) -> Outcome:
    """The stage's work, which all processes of the run do together."""
    with together(context.recipe.virtual_shards):
        outcome = _WORK[type(stage)](stage, context)
        outcome.cost = of_all_ranks(outcome.cost)
        if outcome.model is not None and is_divided(outcome.model):
            if has_adapters(outcome.model):  # its sum with the base is rank 0's work
                outcome.model = outcome.model.division.whole(on_main=True)
            else:
                save_divided(context.working, outcome.model)
    return outcome


def _save(folder: Path, model: Transformer, tokenizer: Tokenizer, origin: Path | None, dtype: torch.dtype) -> None:
    save_model_files(folder, model, tokenizer, origin, dtype)
    save_generation_config(folder, tokenizer)


def _card(stage: Stage, context: Context, model: Transformer, tokenizer: Tokenizer) -> dict:
    families, counts = context.recipe.families_of(stage), account(model.config)
    parameters, converses = counts.total_parameters + counts.mtp_parameters, style_of_stage(stage) == "chat"
    if context.origin is not None:
        root = context.recipe.checkpoint_of_stage(context.name)
        return adapted_card(name_of(context.recipe.checkpoints[root]), parameters, converses, tokenizer.marks,
                            has_plain_marks(tokenizer))
    return model_card(families, parameters, converses, getattr(stage, "examples", None) or families)


def _pretrain(stage: PretrainStage, context: Context) -> Outcome:
    recipe = context.recipe
    tokenizer = train_tokenizer(recipe.seed, recipe.vocab_size, recipe.tokenizer_documents, recipe.held_out)
    refuse_other_vocabulary(tokenizer, context.name)
    model = Transformer(recipe.model_config_of(stage.model, context.source), context.dtype)
    model.init_weights(torch.Generator().manual_seed(recipe.seed))
    context.placed(model)
    monitor = context.monitor()
    log, cost = pretrain(model, tokenizer, recipe.solved_tasks_of(stage), stage.settings, *context.training(), monitor)
    return Outcome(_last(log, "loss", "mtp_loss"), cost, log, model, tokenizer, monitor)


def _midtrain(stage: MidtrainStage, context: Context) -> Outcome:
    narrow, tokenizer = context.read()
    model = Transformer(widened(narrow.config, stage.context, context.source), context.dtype)
    model.load_state_dict(narrow.state_dict())
    context.placed(model)
    monitor = context.monitor()
    log, cost = midtrain(model, tokenizer, context.recipe.solved_tasks, stage.settings, *context.training(), monitor,
                         stage.echo_share, stage.wishes)
    return Outcome(_last(log, "loss", "mtp_loss"), cost, log, model, tokenizer, monitor)


def _sft(stage: SFTStage, context: Context) -> Outcome:
    model, tokenizer = context.load_start(stage.adapter)
    seed, recipe = context.recipe.seed, context.recipe
    sources = []
    if stage.cold_start is not None:
        rows = solver_traces(stage.cold_start, recipe.solved_tasks, seed, stage.dialogue_share)
        sources.append(Traces.of("cold_start", rows))
    if stage.traces is not None:
        sources.append(Traces.of(stage.traces, read_jsonl(context.inputs["traces"].folder / "traces.jsonl", KEYS, texts=True)))
    held_out = None
    if stage.file is not None:
        own = own_data(stage, recipe.hygiene)
        sources.append(own.train)
        held_out = own.held_out
        notes = template_notes([*own.train.rows, *(held_out.rows if held_out else ())], tokenizer)
        for sentence in (own.train.description, own.warning, *notes):
            if sentence is not None:
                context.say(f"{context.name}: {sentence}")
    if stage.general:
        rows = general_traces(stage.general, seed, recipe.solved_tasks, stage.dialogue_share, stage.wishes)
        sources.append(Traces.of("general", rows))
    positions = model.config.max_position_embeddings
    documents = fit(sources, tokenizer, positions, random.Random(f"{seed} {context.name}"))
    for source in sources:
        context.say(f"{context.name}: {source.report.sentence(positions)}")
    monitor = context.monitor()
    asked = held_out_documents(held_out, tokenizer, positions, seed) if held_out else []
    anchor = context.anchor(model, tokenizer)
    watch, before = Stopwatch(), held_out_loss(model, asked, stage.settings)
    measuring = watch.lap()
    log, cost = sft(model, documents, stage.settings, *context.training(), monitor, anchor)
    watch.lap()
    after = held_out_loss(model, asked, stage.settings)
    metrics = {"traces": len(documents)} | _last(log, "loss", "anchor_kl")
    if asked:
        metrics |= {"held_out_loss_before": before, "held_out_loss": after}
        context.say(f"{context.name}: loss on {len(asked):,} held-out traces {before:.3f} before, {after:.3f} after")
        cost = cost + measuring + watch.lap()
    return Outcome(metrics, cost, log, model, tokenizer, monitor, data=reports_of(sources))


def _preferences(stage: PreferenceStage, context: Context) -> Outcome:
    """DPO and KTO. What is held out is measured before and after."""
    model, tokenizer = context.load_start(stage.adapter)
    own, positions = own_data(stage, context.recipe.hygiene), model.config.max_position_embeddings
    examples = fit_preferences(own.train, tokenizer, positions)
    notes = template_notes(reply_rows([*own.train.rows, *(own.held_out.rows if own.held_out else ())]), tokenizer)
    for sentence in (own.train.description, own.warning, *notes, own.train.report.sentence(positions)):
        if sentence is not None:
            context.say(f"{context.name}: {sentence}")
    if isinstance(stage, KTOStage) and examples:
        context.say(f"{context.name}: {stage.settings.weights_of(examples).sentence()}")
    held_out = HeldOut.of(own.held_out, tokenizer, model, stage.settings) if own.held_out else None
    monitor = context.monitor()
    train = dpo if isinstance(stage, DPOStage) else kto
    log, cost = train(model, examples, stage.settings, *context.training(), context.progress("reference"), monitor,
                      context.anchor(model, tokenizer))
    metrics = {own.train.report.unit: len(examples)} | _last(log, "loss", "accuracy", "margin", "chosen_change", "anchor_kl")
    findings = learned_findings(monitor.comparisons[-1])
    if held_out is not None:
        measured, more = held_out.measure(model)
        context.say(f"{context.name}: {held_out.sentence(measured)}")
        metrics |= {f"held_out_{name}": value for name, value in measured.items()}
        findings += held_out_findings(measured["accuracy"], len(held_out.examples))
        cost = cost + more
    return Outcome(metrics, cost, log, model, tokenizer, monitor, findings, reports_of([own.train]))


def _grpo(stage: GRPOStage, context: Context) -> Outcome:
    model, tokenizer = context.load_start(stage.adapter)
    scorer = reference = None
    if stage.reward_model is not None:
        folder = context.inputs["reward_model"].folder
        scorer = partial(score_answers, *load_reward_model(folder, context.dtype, context.device))
    if stage.settings.kl_coefficient:
        reference = context.placed(context.read()[0].requires_grad_(False))
    scale = context.recipe.scale
    with context.sampled(model, tokenizer) as engine:
        monitor = context.monitor(context.validation(model, tokenizer, stage.settings, engine))
        log, cost = grpo(model, tokenizer, context.recipe.tasks_of(), stage.settings, *context.training("learning by reward"),
                         scorer, reference, monitor, context.anchor(model, tokenizer), engine,
                         ON_POLICY if scale is None else scale.staleness)
    return Outcome(_last(log, "reward", "accuracy", "mismatch_kl", "anchor_kl"), cost, log, model, tokenizer, monitor)


def _reject(stage: RejectStage, context: Context) -> Outcome:
    model, tokenizer = context.load()
    watch = Stopwatch()
    source = context.inputs["start"]
    with context.sampled(model, tokenizer) as engine:
        llm = (ResumableLLM(rollout_llm(model, tokenizer), context.checkpoints) if isinstance(engine, PolicyEngine) else
               KeptCalls(engine, context.checkpoints))
        traces, cost, metrics = reject(llm, tokenizer, context.recipe.tasks_of(), stage.settings, context.recipe.seed,
                                       f"{source.stage}-{source.content[:12]}", context.progress("sampling"))
    if world().is_main:
        write_jsonl(context.working / "traces.jsonl", traces)
    return Outcome(metrics, cost + watch.lap() + llm.spent, [], findings=kept_findings(metrics["kept_share"]))


def _reward_model(stage: RewardModelStage, context: Context) -> Outcome:
    backbone, tokenizer = context.read()
    model = context.placed(RewardModel(backbone))
    monitor = context.monitor()
    log, cost = train_reward_model(model, tokenizer, stage.settings, *context.training(), monitor)
    score = model.state_dict()["score.weight"]
    if is_divided(model):
        score = model.division.gathered("score.weight", score)
        save_divided(context.working, backbone)
    if world().is_main:
        save_model_files(context.working, backbone, tokenizer, context.origin)
        (context.working / "generation_config.json").unlink(missing_ok=True)  # which tells models that converse from others
        save_tensors(context.working / "score.safetensors", {"score.weight": score})
    pairs, seed = stage.settings.pairs, context.recipe.seed
    accuracy = held_out_accuracy(model, tokenizer, PAIRS, seed, pairs)
    differences = accuracy_by_difference(model, tokenizer, PAIRS // 2, seed)
    constant = best_constant(model, tokenizer, seed, taught_kinds(stage.settings.wishes))
    metrics = {"held_out_pair_accuracy": accuracy} | {f"held_out_pairs_of_{by}": share for by, share in differences.items()}
    metrics |= {"constant_score": constant.score, "right_score": constant.right}
    findings = [*pair_findings(accuracy, PAIRS),
                *constant_findings(constant.answer, constant.score, constant.right, pairs == "relevance")]
    return Outcome(metrics | _last(log, "loss"), cost, log, monitor=monitor, findings=findings)


_WORK = {PretrainStage: _pretrain, MidtrainStage: _midtrain, SFTStage: _sft, DPOStage: _preferences, KTOStage: _preferences,
         GRPOStage: _grpo, RejectStage: _reject, RewardModelStage: _reward_model}


def load_reward_model(folder: Path, dtype: torch.dtype,
                      device: torch.device = CPU) -> tuple[RewardModel, Tokenizer]:
    model = RewardModel(load_model(folder, compute_dtype=dtype))
    model.score.weight = nn.Parameter(load_tensors(folder / "score.safetensors")["score.weight"])
    return model.requires_grad_(False).to(device), Tokenizer.load(folder)


def evaluate_model(folder: Path, recipe: Recipe, style: PromptStyle, into: Path | None, progress: Progress,
                   checkpoints: Checkpoints) -> None:
    """The same held-out problems at every stage, by the R1 protocol, on the weights as stored (rounding included). Writes
    evaluation.json and all samples into the folder `into`: samples.jsonl, and dialogues.jsonl or textbook.jsonl beside it;
    nothing where that is None, in processes that help. General prompts and conversations are of recipes that have families."""
    with together(recipe.virtual_shards):
        files = _evaluation(folder, recipe, style, progress, checkpoints)
    if into is not None:
        write_json(into / "evaluation.json", files.pop("evaluation"))
        for name, rows in files.items():  # samples last: by them a finished evaluation is known
            write_jsonl(into / f"{name}.jsonl", rows)


def _evaluation(folder: Path, recipe: Recipe, style: PromptStyle, progress: Progress, checkpoints: Checkpoints) -> dict:
    """What `evaluate_model` writes, by the names of files."""
    watch, settings, device = Stopwatch(), recipe.evaluation, compute_device(recipe.device)
    model = load_model(folder, compute_dtype=recipe.computes_in()).to(device)
    tokenizer = Tokenizer.load(folder)
    llm = ResumableLLM(rollout_llm(model, tokenizer), checkpoints)
    problems = held_out_problems(recipe.tasks_of(), settings.problems_per_family)
    graded = grade(llm, tokenizer, problems, settings, recipe.seed, style, progress=progress)
    evaluation = summarize(graded) | {
        "protocol": settings.model_dump() | {"prompt_style": style, "held_out": recipe.held_out},
        "code_version": code_version()}
    beside, others = "", []
    if style == "chat" and recipe.families:
        evaluation["helpfulness"] = general_helpfulness(llm, tokenizer, settings, recipe.seed)
        dialogues = held_out_dialogues(recipe.tasks_of(), settings.problems_per_family)
        beside, others = "dialogues", grade(llm, tokenizer, dialogues, settings, recipe.seed)
        evaluation["dialogues"] = accuracy_of(others)
    elif style != "chat":  # the layout in which the base has read solutions: RL can bring out what is there
        beside, others = "textbook", grade(llm, tokenizer, problems, settings, recipe.seed, "textbook")
        book = summarize(others)
        evaluation["as_textbook"] = {key: value for key, value in book.items() if key != "tokens"}
    cost = of_all_ranks(watch.lap() + llm.spent + Cost(tokens_generated=evaluation["tokens"]))
    evaluation["bill"] = vars(replace(cost, peak_memory_bytes=0))  # of the whole process, not of the evaluation
    return {"evaluation": evaluation} | ({beside: sample_rows(others)} if beside else {}) | {"samples": sample_rows(graded)}


def general_helpfulness(llm: LLM | ResumableLLM, tokenizer: Tokenizer, settings: EvaluationSettings,
                        seed: int) -> dict[str, float]:
    """Content and form of answers to held-out general prompts, means in [0, 1], by the rubric that nothing was trained on."""
    rng = random.Random(f"{seed} helpfulness")
    drawn = [sample_general(rng, language, "held_out", FIRST_KINDS) for language in LANGUAGES for _ in range(32)]
    params = SamplingParams(temperature=settings.temperature, top_p=settings.top_p, max_tokens=settings.max_tokens)
    outputs = llm.generate(prompt_ids(drawn, tokenizer), params, seed=seed)
    replies = [read_reply(o.outputs[0].reply_ids, tokenizer, o.outputs[0].finished) for o in outputs]
    grades = [content_and_form(p, r.answer) if r.well_formed else (0.0, 0.0) for p, r in zip(drawn, replies)]
    return {name: sum(values) / len(drawn) for name, values in zip(("content", "form"), zip(*grades))}


def _last(log: list[dict], *keys: str) -> dict[str, float]:
    """Means over the log's last tenth: one step alone is noise."""
    tail = log[-max(1, len(log) // 10):]
    return {key: sum(row[key] for row in tail) / len(tail) for key in keys if tail and all(key in row for row in tail)}


def describe_model(config: ModelConfig) -> str:
    """One line: what it is and how large."""
    counts = account(config)
    kind = "MLA + MoE + MTP" if config.is_mla else "dense, grouped-query attention"
    return (f"{kind}, {(counts.total_parameters + counts.mtp_parameters) / 1e6:.2f}M parameters, "
            f"{counts.active_parameters / 1e6:.2f}M active, {counts.cache_bytes_per_token} cache bytes per token")
