"""Where a model's files are: a folder, a stage of a run, or a name on the Hugging Face hub. Does not import torch."""

from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json

_CONFIGURATION = ["*.json", "*.jinja", "README.md", "LICENSE*"]
_WEIGHTS = [*_CONFIGURATION, "*.safetensors"]  # pickles are not even fetched


def locate(name: str | Path, stage: str | None = None, weights: bool = True) -> Path:
    """The model folder that `name` means: itself, a stage of a run (its last model where none is named), or the hub's model
    of that name ("org/model").

    What the local cache holds whole is used without asking the network; only what is missing is fetched. With `weights`
    false the configuration is enough. HF_HUB_OFFLINE=1 forbids fetching, HF_HUB_CACHE says where the cache is, HF_TOKEN
    opens gated models, as everywhere.
    """
    path = Path(name)
    if not path.exists() and _is_hub_id(str(name)):
        path = _cached(str(name), weights) or _fetched(str(name), weights)
    if not path.exists():
        raise UserError(f"{name}: no such folder, and not a model's name on the hub (org/model). Correct the path.")
    if not path.is_dir():
        raise UserError(f"{name}: is a file. Give the folder it lies in (Hugging Face layout: config.json and safetensors).")
    if (path / "config.json").exists():
        if stage is not None:
            raise UserError(f"--stage {stage}: {path} is a model, not a run. Leave --stage out.")
        return path
    return _stage_of_run(path, stage)


def models_of(run: Path) -> dict[str, Path]:
    """stage -> folder of the models that a run has made, in the order of its stages."""
    if not (run / "run.json").exists():
        raise UserError(f"{run}: is neither a run (run.json) nor a model (config.json). "
                        "Make one with `spoutnik run recipes/nano.yaml`.")
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


def _is_hub_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _cached(name: str, weights: bool) -> Path | None:
    """The cache's copy, where it is whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if (folder / "config.json").exists() and (not weights or _has_weights(folder)) else None


def _has_weights(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return (folder / "model.safetensors").exists()
    return all((folder / file).exists() for file in set(read_json(index).get("weight_map", {}).values()))


def _fetched(name: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=_WEIGHTS if weights else _CONFIGURATION))
        if weights and (folder / "model.safetensors.index.json").exists() and not _has_weights(folder):
            raise LocalEntryNotFoundError("some shards are missing")  # offline, the library is content with a part
        return folder
    except GatedRepoError as error:
        raise RunError(f"{name}: its owner asks who fetches it. Request access on its page and set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{name}: the hub has no such model, or it is private. Correct it, or set HF_TOKEN.") from error
    except LocalEntryNotFoundError as error:  # offline by setting, or nobody answers
        raise RunError(f"{name}: is not (wholly) in the local cache and the hub cannot be reached. Fetch it once with a "
                       "connection (and without HF_HUB_OFFLINE), or give the path of a folder.") from error
    except (HfHubHTTPError, OSError) as error:
        raise RunError(f"{name}: cannot be fetched ({str(error).splitlines()[0]}). Try again, or give the path of a "
                       "folder.") from error
