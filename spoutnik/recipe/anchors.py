"""A stage's `anchor`: what is checked before, what of it decides the stage's result, what it costs, and how it is opened."""

from collections.abc import Callable
from pathlib import Path

import torch

from spoutnik.errors import UserError
from spoutnik.files import sha256_file, sha256_json
from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import has_adapters
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.recipe.schema import Recipe
from spoutnik.recipe.stage_kinds import Stage
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.anchor import Anchor
from spoutnik.train.anchor_texts import SAMPLE, general_files, read_general_text

_STORED_BYTES = 2  # of a parameter, in most files
ANCHOR_PASSES = 4 / 3  # of a token that is trained: the teacher's forward pass beside the model's forward and backward one


def check_anchor(recipe: Recipe, name: str, source: str) -> None:
    """Raises UserError where a stage's anchor has no text, or its snippets are longer than the model's context."""
    anchor = getattr(recipe.stages[name], "anchor", None)
    if anchor is None:
        return
    positions = recipe.config_of_stage(name, source).max_position_embeddings
    if anchor.tokens > positions:
        raise UserError(f"{source}: stages.{name}.anchor.tokens = {anchor.tokens}: the model has {positions} positions. Lower "
                        "it.")
    try:
        text = read_general_text(anchor.file)
    except UserError as error:
        raise _located(error, anchor.file, name, source) from error
    size = sum(len(part.encode()) for part in text.texts)
    if not text.traces and size < anchor.snippets * anchor.tokens:  # a token is a byte or more
        raise UserError(f"{source}: stages.{name}.anchor.file: holds {size:,} bytes, fewer than the tokens of one step's "
                        f"snippets ({anchor.snippets} x {anchor.tokens}). Give more text.")


def _located(error: UserError, file: Path | None, name: str, source: str) -> UserError:
    hint = "" if file is None or file.exists() else " A path in a recipe is relative to the recipe's folder."
    return UserError(f"{source}: stages.{name}.anchor.file: {error}{hint}")


def anchor_hash(stage: Stage, name: str, source: str) -> str:
    """Of the text. Raises UserError where it cannot be read."""
    file = stage.anchor.file
    try:
        return sha256_json([sha256_file(each) for each in general_files(file or SAMPLE)])
    except UserError as error:
        raise _located(error, file, name, source) from error
    except OSError as error:
        raise UserError(f"{source}: stages.{name}.anchor.file: {error.filename} cannot be read ({error.strerror}). Give a file "
                        "that you may read.") from error


def anchor_work(stage: Stage) -> int:
    """What it costs each step, in tokens trained."""
    return round(ANCHOR_PASSES * stage.anchor.snippets * stage.anchor.tokens)


def anchor_bytes(stage: Stage, config: ModelConfig) -> int:
    """What it holds in memory: of full training a frozen copy of the start, as its files store it."""
    return 0 if getattr(stage, "adapter", None) is not None else _STORED_BYTES * account(config).total_parameters


def open_anchor(recipe: Recipe, name: str, model: Transformer, tokenizer: Tokenizer, start: Path, dtype: torch.dtype,
                say: Callable[[str], None]) -> Anchor | None:
    """A stage's anchor, where it has one; its base, if any, is still to be brought to the device that computes.

    Args:
        model: that is trained. start: the folder of the model it goes on from. dtype: of activations.
    Raises:
        UserError: the text is shorter than the snippets of one step.
    """
    stage = recipe.stages[name]
    settings = getattr(stage, "anchor", None)
    if settings is None:
        return None
    texts, described = read_general_text(settings.file).token_ids(tokenizer)
    base, beside = None, ""
    if not has_adapters(model):
        base = load_model(start, None, dtype, mapped=True).requires_grad_(False)
        size = sum(parameter.nbytes for parameter in base.parameters())
        beside = f". Its start stays in memory as a frozen copy ({size / 1e6:,.0f} MB); with an adapter it would not need to"
    anchor = Anchor(settings, texts, recipe.seed, name, base, stage.settings.micro_batch_tokens)
    assert anchor.starts
    say(f"{name}: anchored to its start by {settings.snippets} snippets of {settings.tokens} tokens in each step, of "
        f"{settings.file or 'the sample that ships with Spoutnik'}: {described}{beside}")
    return anchor
