"""Artifacts: a folder per finished stage, with weights or traces, log, and a manifest of inputs, settings, code and cost.

A folder is named by the hash of what went into it: a finished stage is found again and never redone, and a changed setting
makes a new folder beside the old one.
"""

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

import spoutnik
from spoutnik import files
from spoutnik.errors import RunError
from spoutnik.train.health import stage_health
from spoutnik.train.loop import Cost

ALONG = "along.jsonl"  # of an RL stage: its replies to the same problems, from its start to its end
FORMAT = 2  # raised when artifacts of older code must not be taken for ours


@dataclass(frozen=True)
class Artifact:
    """A finished stage on disk. Its evaluation lies apart: other questions about a model do not make another model."""

    stage: str
    folder: Path
    manifest: dict
    evaluation_folder: Path | None = None

    @property
    def content(self) -> str:
        """Hash of the stage's result, on which later stages depend."""
        return self.manifest["content"]

    @property
    def kind(self) -> str:
        return self.manifest["kind"]

    @property
    def inputs(self) -> dict[str, str]:
        """Role -> the stage it was made from."""
        return {role: source["stage"] for role, source in self.manifest["inputs"].items()}

    @property
    def cost(self) -> Cost:
        """What making the stage cost; a prebuilt one, when it was made."""
        return Cost(**self.manifest["bill"])

    @property
    def evaluation(self) -> dict | None:
        return None if self.evaluation_folder is None else files.read_json(self.evaluation_folder / "evaluation.json")

    @property
    def evaluation_cost(self) -> Cost:
        return Cost() if self.evaluation_folder is None else Cost(**self.evaluation["bill"])

    @property
    def log(self) -> list[dict]:
        path = self.folder / "log.jsonl"
        return files.read_jsonl(path) if path.exists() else []

    @property
    def health(self) -> dict:
        """As the manifest has it; of artifacts older than that, from the log."""
        return self.manifest.get("health") or stage_health(self.log, ())

    @property
    def along(self) -> list[dict]:
        path = self.folder / ALONG
        return files.read_jsonl(path) if path.exists() else []

    @property
    def samples(self) -> list[dict]:
        return [] if self.evaluation_folder is None else files.read_jsonl(self.evaluation_folder / "samples.jsonl")


@cache
def code_version() -> str:
    """The package's version, with the commit where it runs from a checkout."""
    here = Path(spoutnik.__file__).parent
    described = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    return spoutnik.__version__ + (f"+{described.stdout.strip()}" if described.returncode == 0 else "")


def stage_key(kind: str, settings: dict, seed: int, inputs: dict[str, str]) -> str:
    """Hash of everything that decides a stage's result. inputs: role -> content hash."""
    return files.sha256_json({"format": FORMAT, "kind": kind, "settings": settings, "seed": seed, "inputs": inputs})


# What decides later stages; logs, evaluations and bills vary with the clock.
_CONTENT = ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "traces.jsonl", "score.safetensors")


def seal(working: Path, final: Path, stage: str, key: str, description: dict) -> Artifact:
    """Writes the manifest over the files in `working` and moves the folder into place, in one step or not at all."""
    hashes = {str(file.relative_to(working)): files.sha256_file(file) for file in sorted(working.rglob("*")) if file.is_file()}
    manifest = {"stage": stage, "key": key, "format": FORMAT, "code_version": code_version(),
                "torch": torch.__version__, "files": hashes,
                "content": files.sha256_json({name: hashes[name] for name in _CONTENT if name in hashes})} | description
    files.write_json(working / "manifest.json", manifest)
    final.parent.mkdir(parents=True, exist_ok=True)
    files.install_folder(working, final, aside=final.with_name(final.name + ".replaced"))
    return Artifact(stage, final, manifest)


def find(folder: Path, stage: str, key: str) -> Artifact | None:
    """The finished artifact in `folder`, verified file by file; None where there is none.

    Raises:
        RunError: the folder is there but a file is missing, damaged or from other settings.
    """
    if not folder.exists():
        return None
    manifest = files.read_json(folder / "manifest.json")
    if manifest.get("key") != key:
        raise RunError(f"{folder}/manifest.json: belongs to other settings than its name says. "
                       "Delete the folder and run again.")
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.exists():
            raise RunError(f"{file}: is missing from the artifact of stage '{stage}'. Restore it, or delete the folder "
                           f"{folder} and run again.")
        if files.sha256_file(file) != expected:
            raise RunError(f"{file}: is damaged (its hash differs from the manifest). Restore it, or delete the folder "
                           f"{folder} and run again to make stage '{stage}' anew.")
    return Artifact(stage, folder, manifest)


def shipped_folder(stage: str, key: str) -> Path:
    """Where the package would carry this very artifact."""
    return Path(spoutnik.__file__).parent / "prebuilt" / f"{stage}-{key[:12]}"


def copy_shipped(stage: str, key: str, final: Path) -> Artifact | None:
    """The artifact that ships with the package for exactly these settings, copied to `final`; None where none does."""
    source = shipped_folder(stage, key)
    if find(source, stage, key) is None:
        return None
    copy = final.with_name(final.name + ".copying")
    files.remove_folder(copy)
    with files.disk_errors(copy):
        shutil.copytree(source, copy)
    files.install_folder(copy, final)
    return find(final, stage, key)
