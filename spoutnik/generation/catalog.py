"""The list of models to serve: a folder's, a run's, the hub's or the package's own."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spoutnik.engine.llm import LLM, NO_DRAFTS
from spoutnik.engine.sampling_params import RAW_LOGPROBS
from spoutnik.errors import RunError, UserError
from spoutnik.generation.model_card import read_model_card
from spoutnik.generation.service import ServedModel
from spoutnik.loading import load_tokenizer
from spoutnik.locate import SHIPPED, SHIPPED_RUN, locate, models_of, path_of
from spoutnik.model.config import ModelConfig


@dataclass(frozen=True)
class EngineOptions:
    """Arguments of each model's LLM; drafts are its num_speculative_tokens. adapter: merged into the one model
    that is served."""

    quantize: str | None = None
    memory: str | None = None
    speculate: str | None = None
    drafts: int = 1
    max_num_seqs: int = 256
    max_model_len: int | None = None
    logprobs_mode: str = RAW_LOGPROBS
    adapter: Path | None = None
    device: str = "auto"


def list_models(model: str | None, stage: str | None = None) -> list[ServedModel]:
    """The models of a folder, a GGUF file, a run or the hub, first the one for clients that name none. None: the newest run
    under ./runs, or what ships with the package."""
    if model is None or model == SHIPPED and not Path(SHIPPED).exists():
        model = str(SHIPPED_RUN if model else _default_run())
    main, path = locate(model, stage), path_of(model)
    name = path.resolve().name if path.exists() else model
    if stage is not None:
        return [served_model(f"{name}:{stage}", main, _about(path, f"Stage {stage} of {path}."))]
    if path.is_file():
        return [served_model(main.name, main, str(path))]
    if path == main or not path.exists():
        return [served_model(name, main, model)]
    stages = {folder: stage for stage, folder in models_of(path).items()}
    others = [served_model(f"{name}:{stage}", folder, _about(path, f"Stage {stage} of {path}."))
              for folder, stage in stages.items() if folder != main]
    return [served_model(name, main, _about(path, f"Stage {stages[main]} of {path}, its last.")), *others]


def ships_with_package(folder: Path) -> bool:
    return folder.resolve().is_relative_to(SHIPPED_RUN.resolve().parent)


def default_model(stage: str | None = None) -> Path:
    """The folder of the model where none is named: the newest run's under ./runs, or the one that ships with the package."""
    return locate(_default_run(), stage)


def _default_run() -> Path:
    """Runs without a usable model are passed over and named on stderr."""
    found = [index for index in Path("runs").glob("*/run.json") if index.exists()]  # no links to nowhere
    for index in sorted(found, key=lambda index: index.stat().st_mtime, reverse=True):
        try:
            ModelConfig.load(locate(index.parent))
            return index.parent
        except (RunError, UserError) as error:
            print(f"Passed over: {error}", file=sys.stderr)
    return SHIPPED_RUN


def _about(run: Path, stage: str) -> str:
    """A line on a model of a run: its stage, or where it comes from, for people who have made none."""
    return "Ships with the package, made by its nano recipe." if ships_with_package(run) else stage


def served_model(name: str, folder: Path, about: str) -> ServedModel:
    """A model in a folder under the name that clients use."""
    positions = ModelConfig.load(folder).max_position_embeddings
    return ServedModel(name, folder, load_tokenizer(folder), positions, about, read_model_card(folder),
                       created=int((folder / "config.json").stat().st_mtime))


def load_llm(served: ServedModel, engine: EngineOptions, progress: Callable[[int, int], None] | None = None) -> LLM:
    """Reads a model from disk. progress: called with (bytes done, bytes in all) while weights are quantized."""
    llm = LLM(served.folder, served.tokenizer, device=engine.device, adapter=engine.adapter, adapters=served.adapters,
              quantize=served.quantize or engine.quantize, memory=engine.memory, speculate=engine.speculate,
              num_speculative_tokens=engine.drafts, max_num_seqs=engine.max_num_seqs, max_model_len=engine.max_model_len,
              logprobs_mode=engine.logprobs_mode, progress=progress)
    if engine.speculate is not None and llm.core.drafter is None:
        print(f"{served.id}: {NO_DRAFTS}", file=sys.stderr)
    return llm
