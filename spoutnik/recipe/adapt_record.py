"""The command that a run of `spoutnik adapt` was begun with, kept in its folder: the same goes on, another is refused."""

import json
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import read_json, sha256_file, sha256_json, write_json
from spoutnik.recipe.adapt_options import AdaptOptions
from spoutnik.recipe.folder import RunFolder
from spoutnik.row_files import files_at
from spoutnik.train.anchor_texts import general_files

RECORD = "adapt.json"


def keep_record(options: AdaptOptions, share: float, out: Path) -> None:
    """Beside the recipe, which lies in `out`. share: that is held out."""
    write_json(out / RECORD, {"command": _command(options), "contents": contents(options), "held_out_share": share,
                              "recipe": sha256_file(out / "recipe.yaml")})


def _command(options: AdaptOptions) -> dict:
    """The options as JSON values."""
    return json.loads(json.dumps(vars(options), default=str))


def contents(options: AdaptOptions) -> dict[str, str]:
    """Hashes of the files that the command reads."""
    hashes = {"data": sha256_json([sha256_file(file) for file in files_at(options.data.expanduser())])}
    if options.general is not None:
        hashes["general"] = _hash(options.general)
    if options.anchor is not None:
        hashes["anchor"] = sha256_json([sha256_file(file) for file in general_files(options.anchor)])
    if options.verifier is not None and options.verifier.endswith(".py"):
        hashes["verifier"] = _hash(Path(options.verifier).expanduser())
    return hashes


def _hash(path: Path) -> str:
    """Of the file; "" where there is none any more."""
    return sha256_file(path) if path.is_file() else ""


def kept_share(options: AdaptOptions, out: Path) -> float | None:
    """The held-out share of the run that this command goes on with; None where it begins one.

    Raises:
        UserError: the folder belongs to another command, or its files have changed since.
    """
    RunFolder(out).refuse_foreign()
    path = out / RECORD
    if not path.exists():
        if (out / "run.json").exists() or (out / "artifacts").exists():
            raise UserError(f"--out {out}: holds a run that `spoutnik adapt` did not begin. Name another folder.")
        return None
    record = read_json(path)
    now = {"command": _command(options), "contents": contents(options)}
    for name, value in now["command"].items():
        if (before := record["command"].get(name)) != value:
            option = "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
            raise UserError(f"--out {out}: was begun with another command ({option} was {_shown(before)}, now it is "
                            f"{_shown(value)}). Give the same one to go on, or name another folder.")
    for name, value in now["contents"].items():
        if record["contents"].get(name) != value:
            raise UserError(f"--out {out}: was begun with another content of --{name}. Put the former file back to go on, or "
                            "name another folder.")
    if record["recipe"] != _hash(out / "recipe.yaml"):
        raise UserError(f"{out / 'recipe.yaml'}: was changed by hand. Run it as a recipe: spoutnik run {out / 'recipe.yaml'} "
                        "--out ANOTHER.")
    return record["held_out_share"]


def _shown(value: object) -> str:
    return "not given" if value is None or value == {} else str(value)
