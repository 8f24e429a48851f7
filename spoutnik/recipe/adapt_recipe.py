"""The recipe that `spoutnik adapt` writes: readable, and like any other, so that `spoutnik run` of it does the same."""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from spoutnik.errors import UserError
from spoutnik.files import write_jsonl, write_text
from spoutnik.hub_data import is_hub_name, parse_hub_name, pinned
from spoutnik.locate import looks_like_a_folder, path_of
from spoutnik.recipe.adapt_data import AdaptData
from spoutnik.recipe.adapt_options import EPOCHS, LEARNING_RATES, AdaptOptions, slug
from spoutnik.tasks.own import read_task
from spoutnik.tasks.own.script import Script, ScriptTask
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.data.preview import Rendered
from spoutnik.train.prompt_style import message_ids

BASE, ADAPTED = "base", "adapted"  # names in the recipe: of the checkpoint, and of the stage
MOST_PROBLEMS = 200  # held-out ones that are asked before and after
_ROLLOUT_TOKENS = 256  # of a reply in RL, where none are asked for



def recipe_text(options: AdaptOptions, data: AdaptData, lengths: "Lengths", folder: Path) -> str:
    """The recipe as it is to stand in `folder`; paths are relative to it."""
    values = {"name": slug(options.data), "seed": options.seed, "models": {BASE: {"checkpoint": _model(options.model, folder)}}}
    if data.method == "grpo" and not options.full:
        values["dtype"] = "float32"
    if (task := task_name(data)) is not None:
        values["tasks"] = [task]
        asked = MOST_PROBLEMS if data.verifier.kind == "task" else min(data.held_out_problems, MOST_PROBLEMS)
        values["evaluation"] = {"problems_per_family": asked, "samples": 1, "temperature": 0.0, "max_tokens": lengths.reply}
    if options.exempt is not None:
        values["exempt"] = {Path(task).name: options.exempt}
    stage = {"kind": data.method, "from": BASE}
    if data.traces is not None and data.method != "grpo":
        named = str(pinned(parse_hub_name(options.data))) if is_hub_name(options.data) else None
        stage |= {"file": named or _seen_from(folder, options.data)}
        stage |= {"columns": options.columns} if options.columns else {}
        stage |= {"learn": options.learn} if options.learn != "last" else {}
        stage["held_out_share"] = data.share
    if not options.full:
        rank = _given(options.rank, 16)
        stage["adapter"] = {"rank": rank, "alpha": _given(options.alpha, 2.0 * rank)}
    if not options.no_anchor:
        file = {} if options.anchor is None else {"file": _seen_from(folder, options.anchor)}
        stage["anchor"] = file | {"weight": 1.0, "snippets": 4, "tokens": 64}
    settings = {"learning_rate": _given(options.learning_rate, LEARNING_RATES[data.method, options.full]),
                "optimizer": "adamw", "weight_decay": 0.0, "micro_batch_tokens": options.micro_batch_tokens}
    if data.method == "grpo":
        values["validation"] = {"problems": 24, "looks": 1}
        settings |= {"steps": _given(options.steps, 50), "prompts_per_step": 8, "group_size": 8, "max_tokens": lengths.reply}
    else:
        settings |= {"epochs": _given(options.epochs, EPOCHS[data.method]), "tokens_per_step": lengths.step}
    values["stages"] = {ADAPTED: stage | {"settings": settings}}
    return _HEAD.format(data=ascii(options.data.name)[1:-1]) + _yaml(values)


def _given(value: object, otherwise: object) -> object:
    return otherwise if value is None else value


_HEAD = """\
# Written by `spoutnik adapt` for {data}. A recipe like any other: copy it, change it, run it with `spoutnik run`.
# docs/recipes.md has every key, docs/adapt.md says what they do here.
"""
_COMMENTS = {
    "models": "what is adapted",
    "tasks": "held-out problems of the data and how they are graded: asked after training",
    "exempt": "trained on although the audit of its verifier refuses it, and why",
    "validation": "where reinforcement learning tells its best checkpoint",
    "held_out_share": "never trained on, by the hash of a row's first question",
    "anchor": "holds it, on general text, to what the base says there",
    "adapter": "what is trained beside the frozen base; without it, the whole model is",
}


def _yaml(values: dict) -> str:
    """Blocks down to the keys of stages, what lies deeper in one line; comments beside some keys."""
    lines = []

    def block(mapping: dict, indent: str) -> None:
        for key, value in mapping.items():
            comment = f"   # {_COMMENTS[key]}" if key in _COMMENTS else ""
            if key in ("stages", ADAPTED):
                lines.append(f"{indent}{key}:{comment}")
                block(value, indent + "  ")
            else:
                lines.append(f"{indent}{key}: {_flow(value)}{comment}")

    block(values, "")
    return "\n".join(lines) + "\n"


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _model(name: str, folder: Path) -> str:
    """As a recipe in `folder` names it: a path seen from there, or the name that it is."""
    path = path_of(name)
    return _seen_from(folder, path) if path.exists() or looks_like_a_folder(name) else name


def _seen_from(folder: Path, path: Path) -> str:
    """A path as a recipe in `folder` names it. From a folder that is reached by a link, `..` leads up from where it lies."""
    return os.path.relpath(path.expanduser(), folder.resolve())


def task_name(data: AdaptData) -> str | None:
    """Of what is asked before and after; None where nothing is."""
    if data.verifier.kind == "task":
        return data.verifier.name
    if not data.problems:
        return None
    return "data/problems.py" if data.verifier.kind == "script" else "data/problems.jsonl"


def write_data(data: AdaptData, folder: Path) -> None:
    """The problems, and a Python verifier beside them, into `folder`/data."""
    if not data.problems:
        return
    (folder / "data").mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "data" / "problems.jsonl", data.problems)
    if data.verifier.kind == "script":
        shutil.copyfile(Path(data.verifier.name).expanduser(), folder / "data" / "problems.py")


def check_verifier(data: AdaptData, folder: Path) -> list[str]:
    """Grades the held-out answers themselves, from the problems in `folder`; notes on what the verifier does not accept.

    Raises:
        UserError, RunError: it cannot be loaded, raises, or gives what is no grade.
    """
    if not data.problems or data.verifier.kind in ("rows", "task"):
        return []
    if data.verifier.kind == "script":
        _refuse_own_problems(Path(data.verifier.name).expanduser())
    task = read_task(folder / str(task_name(data)))
    if isinstance(task, ScriptTask):
        task.script.path = Path(data.verifier.name).expanduser()  # what it says names the user's file, not the copy of it
    try:
        asked = task.problems("held_out")[:MOST_PROBLEMS]
        refused = [problem for problem in asked if task.verify(problem, problem.answer) <= 0]
    finally:
        if isinstance(task, ScriptTask):
            task.script.close()
    if not refused:
        return []
    return [f"The verifier gives 0 to the data's own answers of {len(refused)} of {len(asked)} held-out problems, first to "
            f"{refused[0].answer[:60]!r} for {refused[0].prompt[:60]!r}."]


def _refuse_own_problems(path: Path) -> None:
    script = Script(path)
    try:
        if script.problems() is not None:
            raise UserError(f"--verifier {path}: poses problems of its own with problems(), and those of --data would not be "
                            "asked. Leave the function out, or write a recipe with this file under `tasks` "
                            "(recipes/adapt.yaml).")
    finally:
        script.close()


@dataclass(frozen=True)
class Lengths:
    """In tokens. reply: the longest that is sampled; step: of one step of fine-tuning."""

    reply: int
    step: int


def askable(data: AdaptData, tokenizer: Tokenizer, positions: int) -> AdaptData:
    """The data without the problems whose questions fill more than half of the model's positions.

    Raises:
        UserError: reinforcement learning has none left.
    """
    kept = [row for row in data.problems if 2 * _question_tokens(row, tokenizer) <= positions]
    if len(kept) == len(data.problems):
        return data
    note = (f"Not asked: {len(data.problems) - len(kept):,} questions that fill more than half of the model's {positions:,} "
            "positions.")
    if {row["split"] for row in kept} != {"train", "held_out"}:
        if data.method == "grpo":
            raise UserError(f"{data.path}: {note} None is left to train on and to hold out. Shorten them, or take "
                            "another model.")
        kept = []
    return replace(data, problems=kept, notes=[*data.notes, note])


def _question_tokens(row: dict, tokenizer: Tokenizer) -> int:
    return len(message_ids([{"role": "user", "content": row["prompt"]}], tokenizer))


def choose_lengths(options: AdaptOptions, data: AdaptData, tokenizer: Tokenizer, positions: int,
                   rendered: Sequence[Rendered]) -> Lengths:
    """Raises UserError where replies of --max-tokens do not fit, or nothing is sampled."""
    if options.max_tokens is not None and task_name(data) is None:
        raise UserError(f"--max-tokens {options.max_tokens}: is of replies that are sampled, and here none are (verifier: "
                        f"{data.verifier.sentence}). Leave it out.")
    longest = max((_question_tokens(row, tokenizer) for row in data.problems), default=0)
    room = positions - longest
    taken = [each for each in rendered if each.fits]
    if options.max_tokens is not None:
        if options.max_tokens > room:
            raise UserError(f"--max-tokens {options.max_tokens}: with a question of {longest:,} tokens it passes the model's "
                            f"{positions:,} positions. Give at most {room}.")
        reply = options.max_tokens
    elif data.method == "grpo" or data.verifier.kind == "task":
        reply = min(room, _ROLLOUT_TOKENS)
    else:
        reply = min(room, 2 * max((each.learned_tokens for each in taken), default=8) + 16, 1024)
    mean = sum(each.read_tokens + each.learned_tokens for each in taken) / max(len(taken), 1)
    return Lengths(reply, min(max(2 ** math.ceil(math.log2(8 * mean + 1)), 256), 8192))


def write_recipe(text: str, data: AdaptData, folder: Path) -> None:
    """The recipe last: where it is, the data is there too."""
    write_data(data, folder)
    write_text(folder / "recipe.yaml", text)
