"""The folder of an experiment: one store of artifacts and evaluations for all variants and seeds, laid out as a run's."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.experiment.grid import Grid, Job
from spoutnik.files import remove_folder
from spoutnik.recipe.artifacts import Artifact, copy_shipped, find, shipped_folder
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.keys import evaluation_protocol, key_of

ALREADY, PREBUILT = "already made", "prebuilt"


@dataclass
class Store:
    """artifacts: symbol of a job -> what it made; of an evaluation the artifact with its evaluation."""

    run: RunFolder
    grid: Grid
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def inputs(self, job: Job) -> dict[str, Artifact] | None:
        """Role -> artifact, published checkpoints left out; None where one is not made yet."""
        if any(symbol not in self.artifacts for symbol in job.needs.values()):
            return None
        return {role: self.artifacts[symbol] for role, symbol in job.needs.items()}

    def key(self, job: Job) -> str:
        """Of the artifact that a job makes, whose inputs are there."""
        stage = job.recipe.stages[job.stage]
        inputs = self.inputs(job) | self._published(job)
        return key_of(job.recipe, stage, job.stage, job.source, inputs)

    def _published(self, job: Job) -> dict[str, Artifact]:
        by_name = {artifact.stage: artifact for artifact in self.grid.starts.values()}
        return {role: by_name[origin] for role, origin in job.recipe.stages[job.stage].inputs.items()
                if origin in job.recipe.checkpoints}

    def final(self, job: Job) -> Path:
        """The folder that a job fills, whose inputs are there."""
        if job.evaluates:
            _, protocol = evaluation_protocol(job.recipe, job.recipe.stages[job.stage])
            return self.run.evaluation(self.artifacts[job.needs["model"]], protocol)
        return self.run.artifact(job.stage, self.key(job))

    def lookup(self, job: Job, copy: bool = False) -> bool:
        """Whether what a job makes is there; it is remembered then. copy: what ships with the package is copied here.

        Raises:
            RunError: it is there, but damaged.
        """
        if job.symbol in self.artifacts:
            return True
        if self.inputs(job) is None:
            return False
        final = self.final(job)
        if job.evaluates:
            if not (final / "samples.jsonl").exists():
                return False
            self.artifacts[job.symbol] = replace(self.artifacts[job.needs["model"]], evaluation_folder=final)
            self.origins[job.symbol] = ALREADY
            return True
        key = self.key(job)
        found, origin = find(final, job.stage, key), ALREADY
        if found is None and not self.run.progress(final).exists():
            origin = PREBUILT
            if copy:
                final.parent.mkdir(parents=True, exist_ok=True)
                found = copy_shipped(job.stage, key, final)
            else:
                found = find(shipped_folder(job.stage, key), job.stage, key)
        if found is None:
            return False
        if origin == ALREADY and shipped_folder(job.stage, key).exists():
            origin = PREBUILT
        self.artifacts[job.symbol], self.origins[job.symbol] = found, origin
        return True

    def made(self, job: Job, folder: Path) -> None:
        """Remembers what a worker has made."""
        if job.evaluates:
            self.artifacts[job.symbol] = replace(self.artifacts[job.needs["model"]], evaluation_folder=folder)
        else:
            self.artifacts[job.symbol] = find(folder, job.stage, self.key(job))
            remove_folder(self.run.progress(folder))
        self.origins[job.symbol] = "made now"

    def look_around(self) -> None:
        """Finds all that is there, without copying."""
        for job in self.grid.jobs.values():
            self.lookup(job)

    def versions(self, symbols: Collection[str] | None = None) -> dict[str, list[str]]:
        """Version of the code -> what it made, of all that is there and that does not ship. symbols: of these jobs alone."""
        versions: dict[str, list[str]] = {}
        for symbol, artifact in self.artifacts.items():
            job = self.grid.jobs[symbol]
            if self.origins[symbol] == PREBUILT or symbols is not None and symbol not in symbols:
                continue
            version = artifact.evaluation.get("code_version") if job.evaluates else artifact.manifest["code_version"]
            versions.setdefault(version or "an older version", []).append(job.title)
        return versions

    def refuse_other_code(self, version: str, mixed: bool) -> None:
        """Where results are of other versions of the code, unless that is wanted: the page says it then.

        Raises:
            UserError: it is not.
        """
        others = {other: titles for other, titles in self.versions().items() if other != version}
        if not others or mixed:
            return
        other, titles = next(iter(others.items()))
        raise UserError(f"{self.run.path}: {len(titles)} of its results ({titles[0]} ...) were made by Spoutnik {other}, and "
                        f"this is {version}. In one table a difference could be the code's. Go on with that version, or begin "
                        "in another folder (--out); where you know that the code in between changes no result, add "
                        "--mixed-code, and the page will say it.")
