"""The folder of a run: who may write to it, what it was made by, and which artifact each stage's name means.

    recipe.yaml    the recipe as it was used
    run.json       stage -> artifact, and where each came from
    artifacts/     finished stages          evaluations/   of their models
    checkpoints/   last checkpoints of finished stages that more steps can be added to
    working/       of the stage in progress
"""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from spoutnik.errors import RunError, UserError
from spoutnik.files import exclusive, read_json, remove_folder, write_json, write_text
from spoutnik.hub_data import is_hub_name
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.schema import Recipe
from spoutnik.recipe.starts import CHECKPOINT
from spoutnik.tasks.catalog import is_file_name

EARLIER = "from an earlier run"
_LOCK, _REDO = "run.lock", "redo.json"


@dataclass(frozen=True)
class RunFolder:
    path: Path

    def refuse_foreign(self) -> None:
        """A folder that holds something else is not ours to fill."""
        out = self.path
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: is a file. Name a folder.")
        ours = any((out / name).exists() for name in ("run.json", "artifacts", "working", _LOCK))
        if out.exists() and any(out.iterdir()) and not ours:
            raise UserError(f"--out {out}: the folder is not empty and holds no run of Spoutnik. Name another one.")

    @contextlib.contextmanager
    def lock(self, patience: float = 0.0) -> Iterator[None]:
        """Held as long as the run works; the system releases it when the process ends. patience: seconds to wait for one that
        is ending.

        Raises:
            RunError: another run works in the folder.
        """
        refusal = (f"{self.path}: another run works in this folder ({{holder}}). Wait for it or stop it, or name another "
                   "folder with --out.")
        deadline = time.monotonic() + patience
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(exclusive(self.path / _LOCK, refusal))
                    break
                except RunError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            yield

    def artifact(self, stage: str, key: str) -> Path:
        return self.path / "artifacts" / f"{stage}-{key[:12]}"

    def evaluation(self, artifact: Artifact, protocol: str) -> Path:
        return self.path / "evaluations" / f"{artifact.stage}-{artifact.content[:12]}-{protocol[:8]}"

    def working(self, final: Path) -> Path:
        """Where the files of `final` are written."""
        return self.path / "working" / final.name

    def progress(self, final: Path) -> Path:
        """The checkpoints on the way to `final`: they outlive its half-written files."""
        return self.path / "working" / f"{final.name}.progress"

    def last_checkpoint(self, final: Path) -> Path:
        """The checkpoints of a finished stage, kept where more steps can be added to it."""
        return self.path / "checkpoints" / final.name

    def forget_progress(self, stages: Iterable[str]) -> None:
        """Removes the checkpoints of these stages and what they made without being sealed, whatever their settings were."""
        for stage in stages:
            for end in ("", ".progress"):
                for folder in (self.path / "working").glob(f"{stage}-{'?' * 12}{end}"):
                    remove_folder(folder)

    def to_redo(self) -> list[str]:
        """Stages that an earlier --from began to make anew, and did not finish."""
        path = self.path / "working" / _REDO
        return read_json(path)["stages"] if path.exists() else []

    def set_to_redo(self, stages: Iterable[str]) -> None:
        path, names = self.path / "working" / _REDO, list(stages)
        if names:
            write_json(path, {"stages": names})
        else:
            path.unlink(missing_ok=True)

    def keep_recipe(self, text: str) -> None:
        path = self.path / "recipe.yaml"
        if not path.exists() or path.read_bytes() != text.encode():
            write_text(path, text)

    def write_index(self, recipe: Recipe, artifacts: dict[str, Artifact], origins: dict[str, str]) -> str | None:
        """run.json: which artifact each stage's name means, for `chat`, `eval` and people. The recipe's other stages keep what
        they have. Returns a sentence where the file was damaged."""
        stages, sources, complaint = {}, {}, None
        try:
            before = self._index()
        except (RunError, KeyError, TypeError, AttributeError) as error:
            before, complaint = {}, f"{self.path / 'run.json'}: was damaged and is written anew ({error})"
        for name in recipe.stages:
            if name in artifacts:
                stages[name], sources[name] = str(artifacts[name].folder.relative_to(self.path)), origins[name]
            elif name in before:
                stages[name], sources[name] = before[name], EARLIER
        write_json(self.path / "run.json", {"recipe": recipe.name, "seed": recipe.seed, "stages": stages, "origins": sources,
                                            "order": list(stages)})
        return complaint

    def _index(self) -> dict[str, str]:
        """Stage -> its artifact's folder, as an earlier run left it, of those that are still there."""
        path = self.path / "run.json"
        stages = read_json(path)["stages"] if path.exists() else {}
        return {name: folder for name, folder in stages.items() if (self.path / folder / "manifest.json").exists()}


def used_recipe(text: str, recipe: Recipe, path: Path, out: Path) -> str:
    """The recipe's text with what was used where that is not what it says: another seed, and the paths of files seen from the
    folder of the run, so that it can be run again from there."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    values = {key.value: value for key, value in root.value}
    changes: dict[tuple[int, int], str] = {}  # from where to where in the text -> what stands there; aliases share a place
    if "seed" not in values and recipe.seed:
        first = root.value[0][0].start_mark  # below what a document may begin with, as wide as the keys beside it
        changes[first.index, first.index] = f"seed: {recipe.seed}" + (", " if root.flow_style else "\n" + " " * first.column)
    if "seed" in values and values["seed"].value != str(recipe.seed):
        changes[_place(values["seed"], text)] = str(recipe.seed)
    for name, stage in values["stages"].value:
        used = recipe.stages.get(name.value)
        written = next((value for key, value in stage.value if key.value == "file"), None)
        if hasattr(used, "file") and written is not None and not (
                is_hub_name(written.value) or Path(written.value).expanduser().is_absolute()):
            changes[_place(written, text)] = _shown_path(used.file, out)
    for name, model in values["models"].value:
        written = next((value for key, value in getattr(model, "value", ()) if key.value == CHECKPOINT), None)
        used = recipe.checkpoints.get(name.value)
        if written is not None and used != written.value and not Path(written.value).expanduser().is_absolute():
            changes[_place(written, text)] = _shown_path(Path(used), out)
    written = [item for key, value in getattr(values.get("hygiene"), "value", ()) if key.value == "benchmarks"
               for item in value.value]
    files = list(zip(written, recipe.hygiene.benchmarks))
    files += [(item, Path(used)) for item, used in zip(getattr(values.get("tasks"), "value", ()), recipe.tasks)
              if is_file_name(item.value)]
    for item, used in files:
        if not Path(item.value).expanduser().is_absolute():
            changes[_place(item, text)] = _shown_path(used, out)
    for (start, end), shown in sorted(changes.items(), reverse=True):
        text = text[:start] + shown + text[end:]
    return text


def _shown_path(path: Path, folder: Path) -> str:
    """A path seen from a folder, as YAML writes it."""
    shown = yaml.safe_dump(os.path.relpath(path, folder), default_flow_style=True, width=10_000, allow_unicode=True)
    return shown.removesuffix("\n...\n").strip()


def _place(node: yaml.Node, text: str) -> tuple[int, int]:
    """Where a value stands in the text, without the anchor or tag before it."""
    start, end = node.start_mark.index, node.end_mark.index
    return start + re.match(r"(?:[&!]\S*\s+)*", text[start:end]).end(), end
