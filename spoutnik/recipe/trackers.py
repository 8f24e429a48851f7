"""Trackers: where a run's log goes beside its own files, for people who follow their runs in TensorBoard or trackio.

Optional: they are imported when they are asked for. What they get is each row of a stage's log, as it is written; a stage that
goes on from a checkpoint sends its steps from there on again.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from spoutnik.errors import UserError

Track = Callable[[str, dict[str, float]], None]  # stage, row of its log
_MISSING = "--track {name}: {name} is not installed. Install it: pip install 'spoutnik[{name}]', or leave --track {name} out."


def track_nothing(stage: str, row: dict[str, float]) -> None:
    """Of a run without trackers."""


class TensorBoard:
    """Event files in a folder of the run: tensorboard --logdir OUT/tensorboard."""

    def __init__(self, out: Path, name: str):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(_MISSING.format(name="tensorboard")) from error
        self._open = lambda stage: SummaryWriter(str(out / "tensorboard" / stage))
        self._writers: dict[str, object] = {}

    def track(self, stage: str, row: dict[str, float]) -> None:
        """Each stage is a run of its own, so that stages with the same signals lie over each other."""
        if stage not in self._writers:
            self._writers[stage] = self._open(stage)
        for key, value in row.items():
            if key != "step":
                self._writers[stage].add_scalar(key, value, row["step"])

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class Trackio:
    """A project of trackio's, which keeps it on this machine: trackio show."""

    def __init__(self, out: Path, name: str):
        try:
            import trackio
        except ImportError as error:
            raise UserError(_MISSING.format(name="trackio")) from error
        self._trackio, self._project, self._out, self._stage = trackio, name, out, None

    def track(self, stage: str, row: dict[str, float]) -> None:
        """Each stage is a run of its own; trackio has one at a time."""
        if stage != self._stage:
            self.close()
            self._trackio.init(project=self._project, name=f"{self._out.name}-{stage}", resume="allow")
            self._stage = stage
        self._trackio.log({key: value for key, value in row.items() if key != "step"}, step=int(row["step"]))

    def close(self) -> None:
        if self._stage is not None:
            self._trackio.finish()
            self._stage = None


TRACKERS = {"tensorboard": TensorBoard, "trackio": Trackio}


def open_trackers(names: Sequence[str], out: Path, name: str, stack: ExitStack) -> Track:
    """What sends a row to all of them; they are closed with the stack. name: of the recipe.

    Raises:
        UserError: there is no such tracker, or it is not installed.
    """
    for each in names:
        if each not in TRACKERS:
            raise UserError(f"--track {each}: there is no such tracker. There are {', '.join(TRACKERS)}.")
    opened = [TRACKERS[each](out, name) for each in dict.fromkeys(names)]
    for tracker in opened:
        stack.callback(tracker.close)

    def track(stage: str, row: dict[str, float]) -> None:
        for tracker in opened:
            tracker.track(stage, row)

    return track
