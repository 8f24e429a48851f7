"""Trackers: where a run's log goes beside its own files, for people who follow their runs in TensorBoard or trackio.

Optional: they are imported when they are asked for. A stage's log is sent whole when its first row comes, in place of what
was there: a killed run loses what its tracker had not yet written, and steps after its last checkpoint are made twice.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from hashlib import sha256
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import remove_folder
from spoutnik.train.health import Row

Track = Callable[[str, Sequence[Row]], None]  # stage, all rows of its log so far
_MISSING = "--track {name}: {name} is not installed. Install it: pip install 'spoutnik[{name}]', or leave --track {name} out."


def track_nothing(stage: str, log: Sequence[Row]) -> None:
    """Of a run without trackers."""


class Tracker(ABC):
    """Each stage is a run of its own, so that stages with the same signals lie over each other; one is open at a time.

    Args:
        out: folder of the run.
        name: of the recipe.

    Raises:
        UserError: the library is not installed.
    """

    @abstractmethod
    def __init__(self, out: Path, name: str): ...

    _stage: str | None = None
    _sent = 0  # rows of its log

    def track(self, stage: str, log: Sequence[Row]) -> None:
        """Sends what is new of a log. Arguments as of Track."""
        if not log:
            return
        if stage != self._stage:
            self.close()
            self._begin(stage)
            self._stage, self._sent = stage, 0
        for row in log[self._sent:]:
            self._add(int(row["step"]), {key: value for key, value in row.items() if key != "step"})
        self._sent = len(log)

    def close(self) -> None:
        if self._stage is not None:
            self._stage = None
            self._end()

    @abstractmethod
    def _begin(self, stage: str) -> None:
        """Opens an empty run; what an earlier one had of this stage goes."""

    @abstractmethod
    def _add(self, step: int, values: dict[str, float]) -> None: ...

    @abstractmethod
    def _end(self) -> None: ...


class TensorBoard(Tracker):
    """Event files in a folder of the run: tensorboard --logdir OUT/tensorboard."""

    def __init__(self, out: Path, name: str):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(_MISSING.format(name="tensorboard")) from error
        self._make_writer, self._folder = SummaryWriter, out / "tensorboard"

    def _begin(self, stage: str) -> None:
        remove_folder(self._folder / stage)
        # purge_step: a TensorBoard that has read the old files forgets their points
        self._writer = self._make_writer(str(self._folder / stage), purge_step=0)

    def _add(self, step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def _end(self) -> None:
        self._writer.close()


class Trackio(Tracker):
    """A project of trackio's, which keeps it on this machine: trackio show.

    Its runs are told apart by their names alone, in all folders on this machine: the name holds the folder's hash.
    """

    def __init__(self, out: Path, name: str):
        try:
            import trackio
        except ImportError as error:
            raise UserError(_MISSING.format(name="trackio")) from error
        digest = sha256(str(out.resolve()).encode()).hexdigest()[:6]
        self._trackio, self._project, self._prefix = trackio, name, f"{out.name}-{digest}"

    def _begin(self, stage: str) -> None:
        name = f"{self._prefix}-{stage}"
        with redirect_stdout(sys.stderr):  # what it says is not part of the command's answer
            with suppress(ValueError):  # there is no such project yet
                for run in self._trackio.Api().runs(self._project):
                    if run.name == name:
                        run.delete()
            self._trackio.init(project=self._project, name=name)

    def _add(self, step: int, values: dict[str, float]) -> None:
        self._trackio.log(values, step=step)

    def _end(self) -> None:
        with redirect_stdout(sys.stderr):
            self._trackio.finish()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "trackio": Trackio}


def make_trackers(names: Collection[str], out: Path, name: str) -> list[Tracker]:
    """Writes nothing. out, name: as of Tracker.

    Raises:
        UserError: there is no such tracker, or it is not installed.
    """
    for each in names:
        if each not in TRACKERS:
            raise UserError(f"--track {each}: there is no such tracker. There are {', '.join(TRACKERS)}.")
    return [TRACKERS[each](out, name) for each in dict.fromkeys(names)]


def sent_to(trackers: Sequence[Tracker], stack: ExitStack) -> Track:
    """What sends a log to all of them; they are closed with the stack."""
    for tracker in trackers:
        stack.callback(tracker.close)

    def track(stage: str, log: Sequence[Row]) -> None:
        for tracker in trackers:
            tracker.track(stage, log)

    return track if trackers else track_nothing
