"""Models of the Hugging Face hub: what the local cache holds, and fetching the rest. Does not import torch.

HF_HUB_OFFLINE=1 forbids fetching, HF_HUB_CACHE says where the cache is, HF_TOKEN opens gated models, HF_ENDPOINT names a
mirror, as everywhere.
"""

import contextlib
import fcntl
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from spoutnik.errors import RunError, UserError
from spoutnik.files import sha256_file
from spoutnik.model.checkpoint import weight_files
from spoutnik.model.presets import preset, preset_names
from spoutnik.units import size

# *.model, *.tiktoken, tokenization_*.py: tokenizers as ranks, and code that is read for how it splits text, but never run.
_CONFIGURATION = ["*.json", "*.jinja", "*.model", "*.tiktoken", "tokenization_*.py", "README.md", "LICENSE*"]
_WEIGHTS = [*_CONFIGURATION, "*.safetensors"]  # pickles are not even fetched
_PART = ".part"  # what is there of a file that is being fetched
_ATTEMPTS = 3  # to reach the hub before giving up


class Stopped(Exception):
    """Raised by a `progress`: ends a fetch. What is there stays."""


Progress = Callable[[int, int], None]  # bytes there, bytes in all


def repository_of(name: str) -> str | None:
    """The hub's name ("org/model") of what a user calls a model: that itself, or a name of `spoutnik models`."""
    if name in preset_names() and (offer := preset(name).offer) is not None:
        return offer.repository
    return name if _is_repository(name) else None


def cached(repository: str, weights: bool = True) -> Path | None:
    """The local cache's copy, where it is whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        patterns = _WEIGHTS if weights else _CONFIGURATION
        folder = Path(snapshot_download(repository, local_files_only=True, allow_patterns=patterns))
    except LocalEntryNotFoundError:
        return None
    return folder if (folder / "config.json").exists() and (not weights or _has_weights(folder)) else None


def fetch(repository: str, weights: bool = True, progress: Progress | None = None) -> Path:
    """Fetches what the cache lacks of a model; its folder. An interrupted fetch goes on where it was. progress: called for
    every few megabytes of weights.

    Raises:
        UserError: there is no such model. RunError: it is not open to all, does not fit the disk, or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with _sentences(repository):
        with _quiet_library(progress is not None):
            folder = Path(snapshot_download(repository, allow_patterns=_CONFIGURATION))
            if weights and not _has_weights(folder):
                _fetch_weights(repository, progress or (lambda done, total: None))
                folder = Path(snapshot_download(repository, allow_patterns=_WEIGHTS))
        if weights and (folder / "model.safetensors.index.json").exists() and not _has_weights(folder):
            raise LocalEntryNotFoundError("some shards are missing")  # offline, the library is content with a part
    if weights and not _has_weights(folder):
        raise RunError(f"{repository}: has no weights as safetensors. Pickles are never opened; look for a copy of the model "
                       "in that format.")
    return folder


def _is_repository(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _has_weights(folder: Path) -> bool:
    """All that `Checkpoint.open` would read."""
    files = weight_files(folder)
    return bool(files) and all(file.exists() for file in files)


def _fetch_weights(repository: str, progress: Progress) -> None:
    """Puts the weights that the cache lacks into it. The hub's own library drops the part of a file that it was interrupted in,
    which of a file of 5 GB is not what people expect; here it stays, and the next fetch goes on behind it."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import DryRunError, LocalEntryNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    try:
        files = snapshot_download(repository, allow_patterns=["*.safetensors"], dry_run=True)
    except DryRunError as error:
        raise LocalEntryNotFoundError("the hub does not say what there is") from error
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model") / "blobs"
    total, missing = sum(file.file_size for file in files), [file for file in files if file.will_download]
    done = total - sum(file.file_size for file in missing)
    blobs.mkdir(parents=True, exist_ok=True)
    _check_disk(repository, total - done - sum(part.stat().st_size for part in blobs.glob("*" + _PART)), blobs)
    for file in missing:
        before = done
        progress(before, total)
        _fetch_file(repository, file.filename, file.commit_hash, blobs, lambda size: progress(before + size, total))  # noqa: B023
        done += file.file_size
    progress(total, total)


def _fetch_file(repository: str, name: str, commit: str, blobs: Path, progress: Callable[[int], None]) -> None:
    """One file into the cache's `blobs`, behind what an interrupted fetch left of it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name, revision=commit)
    metadata = get_hf_file_metadata(url)
    part, whole = blobs / (metadata.etag + _PART), blobs / metadata.etag
    if whole.exists():  # the same weights under another name
        return
    with part.open("ab") as file:
        _lock(file, name)
        attempts = 0
        while file.tell() < metadata.size:
            before = file.tell()
            try:
                _append(file, url, progress)
            except _transport_errors():
                attempts = attempts + 1 if file.tell() <= before else 0
                if attempts == _ATTEMPTS:
                    raise
                time.sleep(attempts)  # not at all as long as something arrives
    if part.stat().st_size != metadata.size or len(metadata.etag) == 64 and sha256_file(part) != metadata.etag:
        part.unlink()
        raise RunError(f"{repository}: {name} arrived damaged and was thrown away. Fetch it again.")
    part.rename(whole)


def _append(file: BinaryIO, url: str, progress: Callable[[int], None]) -> None:
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    start = file.tell()
    headers = build_hf_headers() | ({"Range": f"bytes={start}-"} if start else {}) | {"Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        if start and response.status_code != 206:  # a server that knows no ranges sends it all
            file.seek(0)
            file.truncate()
        try:
            for chunk in response.iter_raw():  # chunks of a size would be lost with the connection
                file.write(chunk)
                progress(file.tell())
        finally:
            file.flush()


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the HTTP library of the hub's raises where a connection breaks; its name differs between versions."""
    from huggingface_hub.utils import get_session

    library = sys.modules[type(get_session()).__module__.split(".")[0]]
    return library.TransportError, OSError


def _lock(file: BinaryIO, name: str) -> None:
    """Two programs never write one part."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(f"{name}: another program is fetching it. Wait for it, or stop it.") from error


def _check_disk(repository: str, needed: int, folder: Path) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise RunError(f"{repository}: {size(needed)} are to be fetched and {there} has {size(free)} free. Free some space, "
                       "or set HF_HUB_CACHE to a folder on another disk.")


@contextlib.contextmanager
def _quiet_library(quiet: bool) -> Iterator[None]:
    """Without the library's own bars, beside ours."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    finally:
        if quiet and not before:
            enable_progress_bars()


@contextlib.contextmanager
def _sentences(repository: str) -> Iterator[None]:
    """What the hub's library raises, in words that help."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        yield
    except GatedRepoError as error:
        raise RunError(f"{repository}: its owner asks who fetches it. Request access on its page and set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{repository}: the hub has no such model, or it is private. Correct it, or set HF_TOKEN.") from error
    except LocalEntryNotFoundError as error:  # offline by setting, or nobody answers
        raise RunError(f"{repository}: is not (wholly) in the local cache and the hub cannot be reached. Fetch it once with a "
                       "connection (and without HF_HUB_OFFLINE), or give the path of a folder.") from error
    except (UserError, RunError, Stopped):
        raise
    except Exception as error:  # of its HTTP library, another one in each version; of the disk
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(f"{repository}: cannot be fetched ({reason}). Try again, it goes on where it was; or give the path of a "
                       "folder.") from error
