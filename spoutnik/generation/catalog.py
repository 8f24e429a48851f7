"""The list of models to serve: a folder's, a run's, the hub's or the package's own."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import spoutnik
from spoutnik.engine.llm import LLM, NO_DRAFTS
from spoutnik.errors import RunError, UserError
from spoutnik.generation.model_card import read_model_card
from spoutnik.generation.service import ServedModel
from spoutnik.loading import load_tokenizer
from spoutnik.locate import locate, models_of
from spoutnik.model.config import ModelConfig


@dataclass(frozen=True)
class EngineOptions:
    """Arguments of each model's LLM; drafts are its num_speculative_tokens."""

    quantize: str | None = None
    memory: str | None = None
    speculate: str | None = None
    drafts: int = 1
    max_num_seqs: int = 256
    max_model_len: int | None = None


SHIPPED = Path(spoutnik.__file__).parent / "prebuilt" / "nano"  # in the shape of a run


def default_run() -> Path:
    """Where the model is that is meant when none is named: the newest run under ./runs, or what ships with the package."""
    return _newest_run(Path("runs")) or SHIPPED


def list_models(model: str | None, stage: str | None = None) -> list[ServedModel]:
    """The models of a folder, a run or the hub, first the one for clients that name none. None: the newest run under ./runs,
    or what ships with the package."""
    if model is None:
        run = default_run()
        if run == SHIPPED and stage is None:
            return _shipped()
        model = str(run)
    main, path = locate(model, stage), Path(model)
    name = path.resolve().name if path.exists() else model
    if stage is not None:
        return [served_model(f"{name}:{stage}", main, f"Stage {stage} of {path}.")]
    if path == main or not path.exists():
        return [served_model(name, main, str(model))]
    stages = {folder: stage for stage, folder in models_of(path).items()}
    others = [served_model(f"{name}:{stage}", folder, f"Stage {stage} of {path}.")
              for folder, stage in stages.items() if folder != main]
    return [served_model(name, main, f"Stage {stages[main]} of {path}, its last."), *others]


def ships_with_package(folder: Path) -> bool:
    return folder.resolve().is_relative_to(Path(spoutnik.__file__).resolve().parent)


def _shipped() -> list[ServedModel]:
    """What the nano recipe ends with, as it comes with the package: the last model, then its student."""
    main = locate(SHIPPED)
    names = {folder: "nano" if folder == main else f"nano:{stage}" for stage, folder in models_of(SHIPPED).items()}
    return [served_model(names[folder], folder, "Ships with the package, made by its nano recipe.")
            for folder in sorted(names, key=lambda folder: folder != main)]


def _newest_run(runs: Path) -> Path | None:
    for index in sorted(runs.glob("*/run.json"), key=lambda index: index.stat().st_mtime, reverse=True):
        with contextlib.suppress(RunError, UserError):  # no model yet
            models_of(index.parent)
            return index.parent
    return None


def served_model(name: str, folder: Path, about: str) -> ServedModel:
    """A model in a folder under the name that clients use."""
    positions = ModelConfig.load(folder).max_position_embeddings
    return ServedModel(name, folder, load_tokenizer(folder), positions, about, read_model_card(folder),
                       created=int((folder / "config.json").stat().st_mtime))


def load_llm(served: ServedModel, engine: EngineOptions, progress: Callable[[int, int], None] | None = None) -> LLM:
    """Reads a model from disk. progress: called with (bytes done, bytes in all) while weights are quantized."""
    llm = LLM(served.folder, served.tokenizer, quantize=served.quantize or engine.quantize, memory=engine.memory,
              speculate=engine.speculate, num_speculative_tokens=engine.drafts, max_num_seqs=engine.max_num_seqs,
              max_model_len=engine.max_model_len, progress=progress)
    if engine.speculate is not None and llm.core.drafter is None:
        print(f"{served.id}: {NO_DRAFTS}", file=sys.stderr)
    return llm
