"""Benchmarks from the hub: tables through `datasets`, which is an extra, other files as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spoutnik.errors import RunError
from spoutnik.tasks.benchmarks.records import Record, datasets_library, read_records, rows_of
from spoutnik.tasks.benchmarks.revisions import REVISIONS

if TYPE_CHECKING:
    from spoutnik.tasks.benchmarks.table import Hub


def hub_records(name: str, hub: "Hub") -> Sequence[Record]:
    """The records of a data set on the hub; downloaded once, then from its cache.

    Raises:
        UserError: `datasets` is not installed. RunError: the hub cannot be reached, or does not give the data.
    """
    if hub.files:
        return read_records(_download(name, hub, file) for file in hub.files)
    library = datasets_library(f"{name}: no --data was given, and reading {hub.repository} from the hub")
    records: list[Record] = []
    for config in hub.configs:
        try:
            rows = library.load_dataset(hub.repository, config, split=hub.split, revision=REVISIONS.get(hub.repository))
        except Exception as error:  # that library raises its own, the hub's and the system's
            raise _unreached(name, hub, error) from error
        where = f"{hub.repository}, {config or 'default'}, {hub.split}"
        records += rows_of(({**row, "config": config} if config is not None else row for row in rows), where)
    return records


def _download(name: str, hub: "Hub", file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub.repository, file, repo_type="dataset", revision=REVISIONS.get(hub.repository)))
    except Exception as error:  # that library raises its own and the system's
        raise _unreached(name, hub, error) from error


def _unreached(name: str, hub: "Hub", error: Exception) -> RunError:
    reason = " ".join(str(error).split())[:200]
    return RunError(f"{name}: {hub.repository} cannot be read from the hub ({reason}). Some data sets want their terms "
                    "accepted and a token (hf auth login); or fetch the files yourself and give --data.")
