"""Published checkpoints from which a recipe's stages start: where they lie, what they are, and the hash of what they hold."""

from collections.abc import Mapping
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.files import sha256_file, sha256_json
from spoutnik.hub import repository_of
from spoutnik.loading import load_tokenizer
from spoutnik.locate import locate, looks_like_a_folder, path_of
from spoutnik.model.checkpoint import GGUF, Checkpoint, weight_files
from spoutnik.model.config import ModelConfig
from spoutnik.model.weight_file import WeightFile, sample_spans
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.start_forms import AS_IT_IS, StartForm, in_form
from spoutnik.text.tokenizer import Tokenizer

CHECKPOINT = "checkpoint"  # the key of a model's entry, and the kind of its artifact
# What a model's folder says beside its weights: copied as it is into every artifact that descends from it.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
                   "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json",
                   "additional_chat_templates/*.jinja", "*.tiktoken", "tokenization_*.py")
_DECIDING = ("config.json", "generation_config.json", *TOKENIZER_FILES)


def located(checkpoint: str, recipe: Path) -> str:
    """A checkpoint as a recipe's file names it, seen from here: a path is relative to the recipe's folder, a name on the hub
    stays."""
    path = path_of(checkpoint)
    if path.is_absolute() or (recipe.parent / path).exists() or looks_like_a_folder(checkpoint):
        return str(recipe.parent / path)
    return checkpoint


def name_of(checkpoint: str) -> str:
    """What to call a checkpoint before others: its name on the hub, or its folder's, without the way there."""
    path = path_of(checkpoint)
    return path.resolve().name if path.exists() else repository_of(checkpoint) or checkpoint


def folder_of(name: str, checkpoint: str, source: str, weights: bool = False, form: StartForm = AS_IT_IS) -> Path:
    """The folder of `models.NAME.checkpoint`, in a form. weights: fetch them too, where it is a model of the hub.

    Raises:
        UserError: there is none, or it cannot be fetched.
    """
    try:
        return in_form(locate(checkpoint, weights=weights), form)
    except (UserError, RunError) as error:
        missing = looks_like_a_folder(checkpoint) and not path_of(checkpoint).exists()
        hint = " A path in a recipe is relative to the recipe's folder." if missing else ""
        raise UserError(f"{_key(name, source)}: {error}{hint}") from error


def config_of(name: str, checkpoint: str, source: str) -> ModelConfig:
    """Of the checkpoint; its weights need not be there. Raises UserError where it cannot be read or computed."""
    folder = folder_of(name, checkpoint, source)
    try:
        return ModelConfig.load(folder)
    except (UserError, RunError) as error:
        raise UserError(f"{_key(name, source)}: {error}") from error


def tokenizer_of(name: str, checkpoint: str, source: str, form: StartForm = AS_IT_IS) -> Tokenizer:
    """Of the checkpoint in a form. Raises UserError where it is missing, damaged or another model's."""
    folder = folder_of(name, checkpoint, source, form=form)
    try:
        return load_tokenizer(folder)
    except (UserError, RunError) as error:
        raise UserError(f"{_key(name, source)}: {error}") from error


def conversing_tokenizer_of(name: str, checkpoint: str, source: str, form: StartForm = AS_IT_IS) -> Tokenizer:
    """Of a checkpoint whose model is to converse. Raises UserError where it has no chat template."""
    tokenizer = tokenizer_of(name, checkpoint, source, form)
    if tokenizer.chat_template is None:
        raise UserError(f"{_key(name, source)} = {checkpoint!r}: has no chat template, and a stage from it converses. "
                        "Take the instruct model, put its chat_template.jinja into the folder, or have it asked as R1-Zero "
                        f"was (template: r1-zero, beside {CHECKPOINT}).")
    return tokenizer


def published_starts(checkpoints: Mapping[str, str], source: str, weights: bool = True,
                     forms: Mapping[str, StartForm] | None = None) -> dict[str, Artifact]:
    """Name under `models` -> checkpoint, as what a stage starts from. Reads headers and samples, no whole weights.

    Args:
        checkpoints: name -> path or name on the hub.
        weights: fetch what the hub's cache lacks. If not, a model that is not fetched yet has the content of nothing that was
            ever made from it.
        forms: name -> the form that it is to have; as it is, where none is named.
    Raises:
        UserError: one is missing, damaged, or of a kind that is not computed here.
    """
    return {name: _published(name, checkpoint, source, weights, (forms or {}).get(name, AS_IT_IS))
            for name, checkpoint in checkpoints.items()}


def _published(name: str, checkpoint: str, source: str, weights: bool, form: StartForm) -> Artifact:
    folder = folder_of(name, checkpoint, source, weights, form)
    parts = {file.relative_to(folder).as_posix(): sha256_file(file)
             for pattern in _DECIDING for file in sorted(folder.glob(pattern))}
    is_here = path_of(checkpoint).exists()
    fetched = is_here or all(file.exists() for file in weight_files(folder) or [folder / "model.safetensors"])
    try:
        if fetched:
            parts |= {GGUF if file.suffix.lower() == ".gguf" else file.name: _sampled(file)
                      for file in _files_of(Checkpoint.open(folder))}
        load_tokenizer(folder)
    except (UserError, RunError) as error:
        raise UserError(f"{_key(name, source)}: {error}") from error
    manifest = {"stage": name, "kind": CHECKPOINT, "content": sha256_json(parts), CHECKPOINT: name_of(checkpoint)}
    return Artifact(name, folder, manifest)


def _files_of(checkpoint: Checkpoint) -> list[Path]:
    return sorted({stored.file for stored in checkpoint.tensors.values()})


def _sampled(path: Path) -> str:
    """Tells a file of weights from another: its size, and blocks from all over it (of a small one, every byte). Training
    changes every block; to read 15 GB before each run would take longer than what many runs do."""
    file = WeightFile(path)
    return f"{file.state.size}-{file.hash(sample_spans(file.state.size))}"


def _key(name: str, source: str) -> str:
    return f"{source}: models.{name}.{CHECKPOINT}"
