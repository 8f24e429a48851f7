"""Where a model's files are: a folder, a stage of a run, or a name on the Hugging Face hub. Does not import torch."""

from pathlib import Path

from spoutnik import hub
from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json
from spoutnik.model.presets import preset_names
from spoutnik.validation import did_you_mean, nearest

SHIPPED = "nano"  # the name of the models that come with the package
SHIPPED_RUN = Path(__file__).parent / "prebuilt" / SHIPPED  # in the shape of a run
OWN_FOLDERS = ("runs", "exports")  # where this program writes: no owners of models on the hub


def locate(name: str | Path, stage: str | None = None, weights: bool = True) -> Path:
    """The model folder that `name` means: itself, that of a GGUF file (gguf_folder.py), a stage of a run (its last model where
    none is named), the shipped one ("nano"), the hub's model of that name ("org/model"), or one that `spoutnik models` lists
    ("qwen3-1.7b").

    What the local cache holds whole is used without asking the network; only what is missing is fetched, and never for a name
    that can only be a folder's. With `weights` false the configuration is enough.
    """
    path = path_of(name)
    if not _exists(path):
        if path.suffix.lower() == ".gguf":
            raise UserError(f"{name}: there is no file of this name. Correct the path.")
        path = SHIPPED_RUN if str(name) == SHIPPED else _from_hub(str(name), weights)
    is_file = not path.is_dir()
    if is_file and path.suffix.lower() != ".gguf":
        raise UserError(f"{name}: is a file, and no GGUF (.gguf). Give the folder it lies in (Hugging Face layout: config.json "
                        "and safetensors).")
    if is_file or (path / "config.json").exists():
        if stage is not None:
            raise UserError(f"--stage {stage}: {path} is a model, not a run. Leave --stage out.")
        return _of_gguf(path) if is_file else path
    _refuse_adapter(path)
    _refuse_folder_of_gguf(path)
    return _stage_of_run(path, stage)


def _of_gguf(path: Path) -> Path:
    from spoutnik.gguf_folder import gguf_folder  # here, since it needs tokenizers and, with the kernels' package, torch

    return gguf_folder(path)


def path_of(name: str | Path) -> Path:
    """The path that a name is; ~ is the home folder, though no shell replaced it."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UserError(f"{name}: there is no such user, so there is no home folder to look in. Correct the path.") from error


def looks_like_a_folder(name: str) -> bool:
    """Whether a name can only mean a folder: by its form, or because it begins with a folder that is here."""
    first, slash, _ = name.partition("/")
    return (name.startswith((".", "/", "~")) or name.endswith("/") or "\\" in name or name.count("/") > 1
            or bool(slash) and (first in OWN_FOLDERS or Path(first).is_dir()))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Correct the path or its permissions.") from error


def _from_hub(name: str, weights: bool) -> Path:
    """The folder of a model of the hub: what the cache holds, else what is fetched."""
    repository = hub.repository_of(name)
    if repository is not None and (cached := hub.cached(repository, weights)) is not None:
        return cached
    if looks_like_a_folder(name):
        ours = repository is None or name.split("/")[0] in OWN_FOLDERS
        pull = "" if ours else f" If you mean a model of the hub, fetch it first: spoutnik pull {name}"
        raise UserError(f"{name}: there is no folder of this name.{_neighbor(name)} Correct the path.{pull}")
    if repository is not None:
        return hub.fetch(repository, weights)
    raise UserError(f"{name}: there is no folder of this name, and it is not a model's name on the hub (org/model)."
                    f"{_neighbor(name) or did_you_mean(name, preset_names())} Correct it, or see `spoutnik models`.")


def _neighbor(name: str) -> str:
    """" Did you mean 'runs/nano'?", of the folders beside the one that is missing."""
    path = path_of(name)
    try:
        beside = [each.name for each in path.parent.iterdir() if each.is_dir()]
    except OSError:
        return ""
    found = nearest(path.name, beside)
    return f" Did you mean '{path.parent / found}'?" if found else ""


def _refuse_adapter(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise UserError(f"{folder}: is an adapter, not a model. Give the model that it belongs to: {base}.")


def _refuse_folder_of_gguf(folder: Path) -> None:
    """A folder of LM Studio's, say: files of one model in several types, of which one must be named."""
    files = sorted(folder.glob("*.gguf"))
    if files and not (folder / "run.json").exists():
        raise UserError(f"{folder}: holds GGUF files ({', '.join(file.name for file in files[:3])}). Give the path of one: "
                        f"{files[0]}.")


def models_of(run: Path) -> dict[str, Path]:
    """stage -> folder of the models that a run has made, in the order of its stages."""
    if not (run / "run.json").exists():
        raise UserError(f"{run}: is neither a run (run.json) nor a model (config.json). "
                        "Make one with `spoutnik run nano`.")
    index = read_json(run / "run.json")
    try:
        folders = {stage: run / index["stages"][stage] for stage in index["order"]}
    except (KeyError, TypeError) as error:
        raise RunError(f"{run / 'run.json'}: does not say which stages there are. Run the recipe again: finished stages are "
                       "kept, and the file is written anew.") from error
    models = {stage: folder for stage, folder in folders.items() if (folder / "generation_config.json").exists()}
    if not models:
        raise RunError(f"{run}: no stage of this run has made a model yet. Run the recipe on.")
    return models


def converses(manifest: dict) -> bool:
    """Whether a stage's model was taught conversations: a base was not, and RL on prompts of plain text teaches none."""
    style = manifest.get("settings", {}).get("settings", {}).get("prompt_style", "chat")
    return manifest.get("kind") not in ("pretrain", "midtrain") and style == "chat"


def _stage_of_run(run: Path, stage: str | None) -> Path:
    models = models_of(run)
    if stage is None:
        # The student is a by-product: the last model of the main line is the one the recipe is about.
        manifests = {name: read_json(models[name] / "manifest.json") for name in models}
        main_line = [name for name, manifest in manifests.items() if converses(manifest) and manifest.get("kind") != "distill"]
        stage = (main_line or list(models))[-1]
    if stage not in models:
        raise UserError(f"--stage {stage}: no such model in {run}.{did_you_mean(stage, models)} Its models are "
                        f"{', '.join(models)}.")
    return models[stage]
