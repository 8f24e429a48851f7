"""Data sets of the Hugging Face hub as files of rows: hub:OWNER/NAME[@REVISION][:CONFIG][:SPLIT].

`datasets`, an extra, reads them: a part at one revision becomes one Parquet file in the user's cache, and is read from there.
Without a revision the one of this moment is meant; recipes want it written down, since stages are known by what they read.
"""

import importlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from spoutnik.errors import RunError, UserError
from spoutnik.files import disk_errors, replacing_raw

PREFIX = "hub:"
_NAME = re.compile(r"hub:(?P<repository>[^/@:\s]+/[^/@:\s]+)(?:@(?P<revision>[^:\s]+))?"
                   r"(?:(?::(?P<config>[^:\[\]]+))?:(?P<split>[^:\[\]]+(?:\[[^\[\]]*\])?))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Rows(Protocol):
    """What `datasets` gives."""

    def to_parquet(self, path: str) -> int: ...


@dataclass(frozen=True)
class HubData:
    """A part of a data set. revision: a commit, a tag or a branch; None for the newest. config: None for the only one. split: a
    split, or a part of one (train[:1000])."""

    repository: str
    revision: str | None = None
    config: str | None = None
    split: str = "train"

    def __str__(self) -> str:
        revision, config = (f"{mark}{text}" if text else "" for mark, text in (("@", self.revision), (":", self.config)))
        return f"{PREFIX}{self.repository}{revision}{config}:{self.split}"

    @property
    def is_pinned(self) -> bool:
        """Whether it can only ever mean the same rows."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None


Load = Callable[[HubData, Path], Rows]  # (a part of a data set, a folder for what is made on the way)


def is_hub_name(path: str | Path) -> bool:
    return str(path).startswith(PREFIX)


def parse_hub_name(name: str | Path) -> HubData:
    """Raises UserError where it is none."""
    match = _NAME.fullmatch(str(name))
    if match is None:
        raise UserError(f"{name}: is no data set of the hub. Write hub:OWNER/NAME, and after it, as is needed, @REVISION, "
                        ":CONFIG and :SPLIT, as in hub:openai/gsm8k:main:train.")
    return HubData(**{key: value for key, value in match.groupdict().items() if value is not None})


@lru_cache(64)
def pinned(data: HubData) -> HubData:
    """With the commit that its revision is at this moment.

    Raises:
        UserError: there is no such data set. RunError: the hub cannot be asked.
    """
    if data.is_pinned:
        return data
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return replace(data, revision=HfApi().dataset_info(data.repository, revision=data.revision).sha)
    except GatedRepoError as error:
        raise RunError(f"{data}: its owner asks who reads it. Request access on its page and set HF_TOKEN.") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{data}: the data set has no revision {data.revision!r}. Correct it.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{data}: the hub has no such data set, or it is private. Correct it, or set HF_TOKEN.") from error
    except Exception as error:  # of the hub's HTTP library, another one in each version
        raise RunError(f"{data}: the hub cannot be asked which revision this is ({_reason(error)}). Try again with a "
                       "connection, or name one: hub:OWNER/NAME@REVISION, which is then read from the cache.") from error


def hub_file(data: HubData, load: Load | None = None) -> Path:
    """The Parquet file of a part of a data set, fetched where the cache has none.

    Raises:
        UserError: `datasets` is not installed, there is no such data set, config or split, or a folder here has its name.
        RunError: the hub cannot be reached.
    """
    from spoutnik.native.build import cache_folder

    data = pinned(data)
    part = re.sub(r"[^\w.+-]", "_", f"{data.config or 'default'}-{data.split}")
    folder = cache_folder() / "hub-data" / data.repository.replace("/", "--") / data.revision
    file = folder / f"{part}.parquet"
    if file.exists():
        return file
    if Path(data.repository).exists():  # which that library would read in its place
        raise UserError(f"{data}: there is also a folder {data.repository} here. To read that give its path without hub:; else "
                        "start from another folder.")
    with disk_errors(file):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as scratch:
        try:
            rows = (load or load_rows)(data, Path(scratch))
            with replacing_raw(file) as temporary:
                rows.to_parquet(str(temporary))
        except (UserError, RunError):
            raise
        except (ValueError, FileNotFoundError) as error:  # an unknown config or split; a data set that is none, or is code
            raise UserError(f"{data}: {_reason(error)}. Correct the name.") from error
        except Exception as error:  # that library raises its own, the hub's and the system's
            raise RunError(f"{data}: cannot be read from the hub ({_reason(error)}). Some data sets want their terms "
                           "accepted and a token (hf auth login); or fetch the files yourself and give their path.") from error
    return file


def load_rows(data: HubData, scratch: Path) -> Rows:
    """By `datasets`, which never runs code of a data set here. Raises UserError where it is not installed."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(f"{data}: reading the hub's data sets needs the package datasets. Install it (pip install "
                        "'spoutnik[datasets]'), or fetch the files yourself and give their path.") from error
    return datasets.load_dataset(data.repository, data.config, split=data.split, revision=data.revision,
                                 cache_dir=str(scratch))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:240].rstrip(".") or type(error).__name__
