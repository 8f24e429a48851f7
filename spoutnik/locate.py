"""Where a model's files are: a folder, a stage of a run, or a name on the Hugging Face hub. Does not import torch."""

from pathlib import Path

from spoutnik import hub
from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json


def locate(name: str | Path, stage: str | None = None, weights: bool = True) -> Path:
    """The model folder that `name` means: itself, a stage of a run (its last model where none is named), the hub's model
    of that name ("org/model"), or one that `spoutnik models` lists ("qwen3-1.7b").

    What the local cache holds whole is used without asking the network; only what is missing is fetched. With `weights`
    false the configuration is enough.
    """
    path = Path(name)
    if not path.exists() and (repository := hub.repository_of(str(name))) is not None:
        path = hub.cached(repository, weights) or hub.fetch(repository, weights)
    if not path.exists():
        raise UserError(f"{name}: no such folder, and not a model's name on the hub (org/model). Correct the path, or see "
                        "`spoutnik models`.")
    if not path.is_dir():
        raise UserError(f"{name}: is a file. Give the folder it lies in (Hugging Face layout: config.json and safetensors).")
    if (path / "config.json").exists():
        if stage is not None:
            raise UserError(f"--stage {stage}: {path} is a model, not a run. Leave --stage out.")
        return path
    _refuse_adapter(path)
    return _stage_of_run(path, stage)


def _refuse_adapter(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise UserError(f"{folder}: is an adapter, not a model. Give the model that it belongs to: {base}.")


def models_of(run: Path) -> dict[str, Path]:
    """stage -> folder of the models that a run has made, in the order of its stages."""
    if not (run / "run.json").exists():
        raise UserError(f"{run}: is neither a run (run.json) nor a model (config.json). "
                        "Make one with `spoutnik run nano`.")
    index = read_json(run / "run.json")
    folders = {stage: run / index["stages"][stage] for stage in index["order"]}
    models = {stage: folder for stage, folder in folders.items() if (folder / "generation_config.json").exists()}
    if not models:
        raise RunError(f"{run}: no stage of this run has made a model yet. Run the recipe on.")
    return models


def _stage_of_run(run: Path, stage: str | None) -> Path:
    models = models_of(run)
    if stage is None:
        # The student is a by-product: the last model of the main line is the one the recipe is about.
        main_line = [name for name in models if read_json(models[name] / "manifest.json")["kind"]
                     not in ("distill", "pretrain", "midtrain")]
        stage = (main_line or list(models))[-1]
    if stage not in models:
        raise UserError(f"--stage {stage}: no such model in {run}. Its models are {', '.join(models)}.")
    return models[stage]
