"""The traces or preferences of a stage's `file`: read, freed of what hygiene drops, split into training and held-out part."""

from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.hub_data import is_hub_name, parse_hub_name, pinned
from spoutnik.recipe.hygiene import HygieneSettings, clean_traces
from spoutnik.recipe.preference_stages import DPOStage, KTOStage, PreferenceStage
from spoutnik.recipe.stage_kinds import SFTStage
from spoutnik.row_files import files_at
from spoutnik.train.data.conversations import context_of
from spoutnik.train.data.loading import load_traces
from spoutnik.train.data.preferences import load_preferences
from spoutnik.train.data.split import has_held_out, hold_out
from spoutnik.train.kto import refuse_one_sided
from spoutnik.train.traces import Traces

FileStage = SFTStage | PreferenceStage  # may read a file of the user's

@dataclass(frozen=True)
class OwnData:
    """warning: on a benchmark's problems that are trained on."""

    train: Traces
    held_out: Traces | None
    warning: str | None


def own_data(stage: FileStage, hygiene: HygieneSettings) -> OwnData:
    """Raises UserError for whatever is wrong with the data."""
    assert stage.file is not None
    traces, warning = clean_traces(_loaded(stage), hygiene)
    train, held_out = hold_out(traces, stage.held_out_share) if stage.held_out_share or has_held_out(traces) else (
        traces, None)
    if isinstance(stage, KTOStage):
        refuse_one_sided([(row["label"], context_of(row)) for row in train.rows], train.report.source)
    return OwnData(train, held_out, warning)


def _loaded(stage: FileStage) -> Traces:
    if isinstance(stage, PreferenceStage):
        return load_preferences(stage.file, "pairs" if isinstance(stage, DPOStage) else "replies", stage.columns)
    return load_traces(stage.file, stage.columns, stage.learn)


def _refuse_unpinned(file: Path, where: str) -> None:
    """A stage is known by what it reads: a name that means other rows tomorrow is none for a recipe."""
    data = parse_hub_name(file)
    if data.is_pinned:
        return
    try:
        remedy = f"Write {pinned(data)}, which it is now."
    except RunError as error:
        remedy = f"Write its commit (hub:OWNER/NAME@COMMIT). ({error})"
    raise UserError(f"{where}: names no commit, so that it may mean other rows tomorrow. {remedy}")


def existing_files(stage: FileStage, name: str, source: str) -> list[Path]:
    """The stage's files of traces. Raises UserError where there is none, or one cannot be read."""
    assert stage.file is not None
    where = f"{source}: stages.{name}.file = {str(stage.file)!r}"
    if is_hub_name(stage.file):
        _refuse_unpinned(stage.file, where)
    try:
        files = files_at(stage.file)
    except UserError as error:
        elsewhere = (Path(source).parent / stage.file).exists() or (Path.cwd() / stage.file.name).exists()
        relative = not (is_hub_name(stage.file) or stage.file.is_absolute())
        hint = " A path in a recipe is relative to the recipe's folder." if elsewhere or relative else ""
        reason = str(error).removeprefix(f"{stage.file}: ")
        raise UserError(f"{where}: {reason}{hint}") from error
    for file in files:
        try:
            open(file, "rb").close()
        except OSError as error:
            raise UserError(f"{where}: {file} cannot be read ({error.strerror}). Give a file that you may read.") from error
    return files
