"""What a recipe's stages take in tokens and optimizer steps, before anything is made: plans are predicted from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.evals.protocol import held_out_count
from spoutnik.recipe.own_data import own_data
from spoutnik.recipe.preference_stages import DPOStage, PreferenceStage
from spoutnik.recipe.schema import Recipe
from spoutnik.recipe.stage_kinds import (
    BaseStage,
    GRPOStage,
    MidtrainStage,
    PretrainStage,
    RejectStage,
    RewardModelStage,
    SFTStage,
)
from spoutnik.recipe.starts import conversing_tokenizer_of
from spoutnik.text.chat_template import TemplateRefusal
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.data.preferences import reply_rows
from spoutnik.train.monitor import COMPARED_DOCUMENTS
from spoutnik.train.sft import MEASURED, characters, trace_document

# Measured on runs of the nano recipe (docs/results.md, 30 November 2026).
TYPICAL_LENGTH = 0.27  # of max_tokens
_ANSWERED = 0.25  # of max_tokens, of an evaluation's replies, at a lower temperature
PROMPT = 32  # tokens of a prompt that is rehearsed
_QUESTION, _EARLIER = 25, 63  # tokens of a prompt, and of the turns before a question that has some
_SOLVED, _KEPT, _GENERAL = 76, 98, 53  # tokens of a prompt with a solver's trace, one that was kept, a general conversation
_KEPT_SHARE = 0.75  # of the traces that rejection sampling may keep of a problem
_REJECTED = 0.65  # of the tokens that it samples
# Of a trace in a file, where no tokenizer is there yet: characters per token, tokens that the conversation's frame adds.
_CHARACTERS, _FRAME = 3, 8
_COUNTED = 1000  # traces of a file that are encoded; the tokens of the others follow from their characters
# Shares of RL's groups without variance, and of their tokens, which are not trained on: of a policy that comes from a cold
# start, and of one whose line was already rewarded once and is mostly right.
_FLAT, _FLAT_LATER = (0.32, 0.28), (0.65, 0.57)


@dataclass(frozen=True)
class Work:
    """What making a stage takes: tokens trained and generated, and steps of its optimizer. wasted: of those generated, not
    trained on. measured: read without learning from them, to tell before and after apart. decoded: steps of generation one
    after the other, each of one token for all that is sampled together."""

    trained: int = 0
    generated: int = 0
    steps: int = 0
    optimizer: str = "adamw"
    wasted: int = 0
    measured: int = 0
    decoded: int = 0


def stage_work(recipe: Recipe, name: str) -> Work:
    """The work of a stage, without its evaluation."""
    stage = recipe.stages[name]
    match stage:
        case PretrainStage(settings=s) | MidtrainStage(settings=s) | RewardModelStage(settings=s):
            return Work(s.steps * s.tokens_per_step, 0, s.steps, s.optimizer)
        case SFTStage(settings=s):
            tokens = _GENERAL * stage.general + (_SOLVED * stage.cold_start.traces if stage.cold_start else 0)
            if stage.traces is not None:
                rejected = recipe.stages[stage.traces].settings
                tokens += _KEPT * _KEPT_SHARE * rejected.prompts * min(rejected.samples, rejected.keep_per_prompt)
            own = _own_tokens(recipe, name) if stage.file is not None else _Own()
            tokens = round((tokens + own.train) * s.epochs)
            return Work(tokens, 0, -(-tokens // s.tokens_per_step), s.optimizer, measured=own.measured)
        case PreferenceStage(settings=s):
            own = _own_tokens(recipe, name)
            tokens = own.train
            read = tokens if isinstance(stage, DPOStage) else (2 + s.epochs) * tokens  # without a gradient: a third of the work
            trained = round(s.epochs * tokens)
            filled = trained if isinstance(stage, DPOStage) else 2 * trained
            return Work(trained + round(read / 3), 0, -(-filled // s.tokens_per_step), s.optimizer, measured=own.measured)
        case GRPOStage():
            return _reinforcement(recipe, name, stage)
        case RejectStage(settings=s):
            generated = round(s.prompts * s.samples * s.max_tokens * TYPICAL_LENGTH)
            return Work(generated=generated, wasted=round(_REJECTED * generated))


def _reinforcement(recipe: Recipe, name: str, stage: GRPOStage) -> Work:
    s = stage.settings
    completions, length = s.steps * s.prompts_per_step * s.group_size, round(s.max_tokens * TYPICAL_LENGTH)
    prompt = (_QUESTION + s.dialogue_share * _EARLIER) / (s.group_size if s.share_prompts else 1)
    flat, tokens_flat = _FLAT_LATER if rewarded_before(recipe, name) else _FLAT
    if s.rewards.random is not None:
        flat = tokens_flat = 2 ** (1 - s.group_size)  # coins that all fall alike
    drawn = 1.0  # of a step's groups
    if s.zero_variance == "refill":  # each round draws as many as were without variance
        drawn = sum(flat ** number for number in range(s.refill_rounds + 1))
        flat, tokens_flat = flat ** (s.refill_rounds + 1), 1 - drawn * (1 - tokens_flat)
    elif s.zero_variance == "keep":
        flat = tokens_flat = 0.0
    learned = min(1 - tokens_flat, drawn)  # of the length of a step's completions
    return Work(round(completions * (length * learned + prompt * (1 - flat))), round(completions * length * drawn), s.steps,
                s.optimizer, round(completions * length * (drawn - learned)), decoded=s.steps * s.max_tokens)


def rewarded_before(recipe: Recipe, name: str) -> bool:
    """Whether the model that a stage starts from was trained by reward, or on traces of one that was."""
    before = [origin for role, origin in recipe.stages[name].inputs.items() if role in ("start", "traces")
              and origin in recipe.stages]
    return any(isinstance(recipe.stages[origin], GRPOStage) or rewarded_before(recipe, origin) for origin in before)


@dataclass(frozen=True)
class _Own:
    """Tokens of a stage's file: that one pass trains on, and of its held-out part, as far as that is measured. compared: of
    those whose losses before and after are compared."""

    train: int = 0
    held_out: int = 0
    compared: int = 0

    @property
    def measured(self) -> int:
        return 2 * (self.held_out + self.compared)


def _own_tokens(recipe: Recipe, name: str) -> _Own:
    """As many as the traces of a stage's file have, those left out that will not fit: of a published start's tokenizer, else
    about as many."""
    stage = recipe.stages[name]
    positions = recipe.config_of_stage(name, "the recipe").max_position_embeddings
    own, root = own_data(stage, recipe.hygiene), recipe.checkpoint_of_stage(name)
    tokenizer = None if root is None else conversing_tokenizer_of(root, recipe.checkpoints[root], "the recipe",
                                                                  recipe.start_forms[root])

    def lengths(rows: Sequence[dict]) -> list[float]:
        return [length for length in trace_lengths(reply_rows(rows), tokenizer) if length <= positions]

    train = lengths(own.train.rows)
    held_out = sum(lengths(own.held_out.rows[:MEASURED])) if own.held_out else 0
    compared = sum(train) * min(1, COMPARED_DOCUMENTS / max(len(own.train.rows), 1))
    return _Own(round(sum(train)), round(held_out), round(compared))


def trace_lengths(rows: Sequence[dict], tokenizer: Tokenizer | None) -> list[float]:
    """Tokens of each trace, without those that the chat template refuses. Of many, some are encoded, evenly among all."""
    if tokenizer is None:
        return [characters(row) / _CHARACTERS + _FRAME for row in rows]
    every = -(-len(rows) // _COUNTED) or 1
    counted = [(row, length) for row in rows[::every] if (length := _encoded_length(row, tokenizer)) is not None]
    if every == 1:
        return [length for _, length in counted]
    read = sum(characters(row) for row, _ in counted)
    rate = sum(length for _, length in counted) / max(read, 1)
    return [rate * characters(row) for row in rows]


def _encoded_length(row: dict, tokenizer: Tokenizer) -> int | None:
    try:
        return len(trace_document(row, tokenizer).ids)
    except TemplateRefusal:
        return None


def held_out_tokens(recipe: Recipe, name: str) -> int:
    """Of the held-out part of a stage's file, as far as it is measured; 0 without a file."""
    return _own_tokens(recipe, name).held_out if getattr(recipe.stages[name], "file", None) is not None else 0


def validation_tokens(recipe: Recipe, name: str) -> int:
    """Generated to tell an RL stage's start, result and best checkpoint apart."""
    stage, chosen = recipe.stages[name], recipe.validation
    if not isinstance(stage, GRPOStage):
        return 0
    return round(chosen.problems * (chosen.looks + 2) * stage.settings.max_tokens * TYPICAL_LENGTH)


def validation_steps(recipe: Recipe, name: str) -> int:
    """Steps of generation of an RL stage's validation, one after the other."""
    stage = recipe.stages[name]
    return (recipe.validation.looks + 2) * stage.settings.max_tokens if isinstance(stage, GRPOStage) else 0


def evaluation_tokens(recipe: Recipe, name: str) -> int:
    """Generated by the evaluation of a stage's model: a base is asked in two layouts, others in conversations as well."""
    if isinstance(recipe.stages[name], RejectStage | RewardModelStage):
        return 0
    problems = held_out_count(recipe.tasks_of(), recipe.evaluation.problems_per_family)
    is_base = isinstance(recipe.stages[name], BaseStage)
    dialogues = recipe.evaluation.problems_per_family if recipe.families else 0
    problems = 2 * problems if is_base else problems + dialogues
    return round(problems * recipe.evaluation.samples * recipe.evaluation.max_tokens * _ANSWERED)
