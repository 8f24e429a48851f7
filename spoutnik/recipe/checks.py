"""What can be found wrong before the first stage: files of traces, and completions for which a model has no positions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from spoutnik.errors import RunError, UserError
from spoutnik.evals.protocol import held_out_dialogues, held_out_problems
from spoutnik.files import sha256_json
from spoutnik.recipe.adapters import check_adapter
from spoutnik.recipe.anchors import check_anchor
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.keys import seed_of, style_of_stage
from spoutnik.recipe.own_data import existing_files, own_data
from spoutnik.recipe.schema import Recipe
from spoutnik.recipe.stage_kinds import GRPOStage, PretrainStage, RejectStage, RewardModelStage, Stage
from spoutnik.recipe.starts import conversing_tokenizer_of, tokenizer_of
from spoutnik.tasks import Problem
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.pretrain import train_tokenizer
from spoutnik.train.prompt_style import PromptStyle, prompt_ids
from spoutnik.train.rollouts import sample_problems

_CHARACTERS = 6  # of a prompt for each of its tokens, at the most
_FRAME = 12  # tokens that the conversation's frame has for each turn, at the most
_SAMPLED_PROMPTS = 256


Drawn = dict[str, tuple[list[Problem], list[Problem]]]  # by the settings that decide them


def check_recipe(recipe: Recipe, source: str, selected: Sequence[str], found: dict[str, Artifact],
                 drawn: Drawn | None = None) -> None:
    """Refuses what a run would find out late.

    Args:
        found: artifacts that are already there; their tokenizer counts prompts, and so does that of a checkpoint.
        drawn: held-out problems and dialogues that variants of the recipe were checked with before, which is filled: to draw
            thousands of them takes a second or two.

    Raises:
        UserError: with file, key, value and remedy.
    """
    for name in selected:
        stage = recipe.stages[name]
        if getattr(stage, "file", None) is not None:
            existing_files(stage, name, source)
            own_data(stage, recipe.hygiene)
        check_adapter(recipe, name, source)
        check_anchor(recipe, name, source)
        start = getattr(stage, "start", None)
        if start in recipe.checkpoints:
            recipe.config_of_stage(name, source)
            read = conversing_tokenizer_of if _asked_style(stage) == "chat" else tokenizer_of
            read(start, recipe.checkpoints[start], source, recipe.start_forms[start])
    lengths = _Lengths(recipe, source, found)
    for name in selected:
        stage = recipe.stages[name]
        if isinstance(stage, GRPOStage | RejectStage):
            rng = random.Random(f"{seed_of(recipe, stage)} check")  # prompts like the stage's
            asked = sample_problems(rng, recipe.tasks_of(stage), _SAMPLED_PROMPTS, "train", stage.settings.dialogue_share)
            lengths.check(name, f"stages.{name}.settings.max_tokens", stage.settings.max_tokens, asked)
    problems, dialogues = _held_out(recipe, {} if drawn is None else drawn)
    for name in selected:
        stage = recipe.stages[name]
        if problems and not isinstance(stage, RejectStage | RewardModelStage):
            asked = problems + dialogues if style_of_stage(stage) == "chat" else problems
            lengths.check(name, "evaluation.max_tokens", recipe.evaluation.max_tokens, asked)


def _held_out(recipe: Recipe, drawn: Drawn) -> tuple[list[Problem], list[Problem]]:
    """What models are asked; drawn once for variants that are asked the same."""
    per_family = recipe.evaluation.problems_per_family
    asked = recipe.model_dump(include={"families", "tasks", "abstention", "held_out"}, mode="json")
    key = sha256_json([asked, per_family])
    if key not in drawn:
        tasks = recipe.tasks_of()
        drawn[key] = (held_out_problems(tasks, per_family),
                      held_out_dialogues(tasks, per_family) if recipe.families else [])
    return drawn[key]


@dataclass
class _Lengths:
    """Whether prompts and completions fit. Prompts are counted only where their texts' lengths do not decide it."""

    recipe: Recipe
    source: str
    found: dict[str, Artifact]
    trained: dict[int, Tokenizer] = field(default_factory=dict)

    def check(self, name: str, key: str, max_tokens: int, problems: Sequence[Problem]) -> None:
        positions = self.recipe.config_of_stage(name, self.source).max_position_embeddings
        published = self.recipe.checkpoint_of_stage(name) is not None  # whose frame of a conversation may be of any length
        framed = _asked_style(self.recipe.stages[name]) == "r1-zero"  # by a paragraph
        if not published and not framed and max_tokens + max(map(_most_tokens, problems)) <= positions:
            return
        longest = max(-(-len(problem.prompt) // _CHARACTERS) for problem in problems)
        if framed or max_tokens + longest <= positions:
            longest = self._longest(name, problems)
        if max_tokens + longest > positions:
            raise UserError(f"{self.source}: {key} = {max_tokens}: with a prompt of {longest} tokens it passes the {positions} "
                            f"positions of the model of stage '{name}'. Lower it to {max(positions - longest, 0)}, or widen "
                            "the model's context (max_position_embeddings).")

    def _longest(self, name: str, problems: Sequence[Problem]) -> int:
        tokenizer = self._tokenizer(name)
        style = _asked_style(self.recipe.stages[name])
        styles = ("chat",) if style == "chat" else (style, "textbook")
        return max(len(ids) for style in styles for ids in prompt_ids(problems, tokenizer, style))

    def _tokenizer(self, name: str) -> Tokenizer:
        """The one that the stage's model will have: that of an ancestor that is made, or the one that the first will train."""
        stage = self.recipe.stages[name]
        if name in self.found:
            try:
                return Tokenizer.load(self.found[name].folder)
            except RunError:
                pass  # a stage without one
        if not isinstance(stage, PretrainStage):
            checkpoint = self.recipe.checkpoints.get(stage.start)
            return self._tokenizer(stage.start) if checkpoint is None else tokenizer_of(
                stage.start, checkpoint, self.source, self.recipe.start_forms[stage.start])
        seed = seed_of(self.recipe, stage)
        if seed not in self.trained:
            self.trained[seed] = train_tokenizer(seed, self.recipe.vocab_size, self.recipe.tokenizer_documents,
                                                 self.recipe.held_out)
        return self.trained[seed]


def _asked_style(stage: Stage) -> PromptStyle:
    return stage.settings.prompt_style if isinstance(stage, RejectStage) else style_of_stage(stage)


def _most_tokens(problem: Problem) -> int:
    """No tokenizer of bytes makes more of a problem and its history."""
    texts = [problem.prompt, *(text for turn in problem.history for text in turn)]
    return sum(len(text.encode()) + _FRAME for text in texts)
