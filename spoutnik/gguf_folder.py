"""A GGUF file as a folder in Hugging Face layout, which everything that reads models reads: a link to the file for its weights,
and what its metadata says as config.json, tokenizer.json and the other small files. The folder is in the user's cache; it is
written again when the file is another one."""

import hashlib
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import read_json, replacing, write_json
from spoutnik.model.checkpoint import GGUF
from spoutnik.model.config import ModelConfig
from spoutnik.model.gguf_config import gguf_config
from spoutnik.model.gguf_header import GGUFHeader, read_gguf_header
from spoutnik.model.gguf_tensors import gguf_stored
from spoutnik.model.weight_file import FileState
from spoutnik.native.build import cache_folder
from spoutnik.text.gguf_tokenizer import gguf_tokenizer
from spoutnik.text.tokenizer import Tokenizer, check_vocabulary

_STAMP = "gguf.json"  # written last: what the folder was made of
_VERSION = 1  # raise it where folders of an older version must not be read
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def gguf_folder(path: Path) -> Path:
    """The folder of a GGUF file, made where it is not there. Its name is the file's without the suffix.

    Raises:
        UserError: the model or its tokenizer is of a kind that is not read here. RunError: the file is damaged.
    """
    path = path.resolve()
    stamp = {"version": _VERSION, "file": str(path), "state": list(FileState.of(path.stat()))}
    folder = cache_folder() / "gguf" / hashlib.sha256(os.fsencode(path)).hexdigest()[:12] / path.stem
    if _is_current(folder, stamp):
        return folder
    header = read_gguf_header(path)
    if header.metadata.get("general.type") == "adapter":
        raise UserError(f"{path}: is an adapter, not a model. Give the model that it belongs to.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, header, stamp)
    except OSError:  # a cache that cannot be written
        folder = _temporary() / folder.parent.name / path.stem
        if not _is_current(folder, stamp):
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder, header, stamp)
    return folder


def _is_current(folder: Path, stamp: dict) -> bool:
    return (folder / _STAMP).exists() and read_json(folder / _STAMP) == stamp


@cache
def _temporary() -> Path:
    """A folder for this process alone."""
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="spoutnik-gguf-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _write(folder: Path, header: GGUFHeader, stamp: dict) -> None:
    tokenizer = gguf_tokenizer(header.metadata, header.path)
    values = gguf_config(header)
    values |= {"bos_token_id": None, "eos_token_id": None} if tokenizer is None else {
        "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_ids}
    config = ModelConfig.read(values, str(header.path))
    gguf_stored(header, config)  # whatever does not fit is said before anything is written
    if tokenizer is not None:
        check_vocabulary(tokenizer, config.vocab_size, header.path)
    (folder / _STAMP).unlink(missing_ok=True)
    for name in _TOKENIZER:
        (folder / name).unlink(missing_ok=True)
    if tokenizer is not None:
        tokenizer.save(folder)
    write_json(folder / "config.json", config.published())
    write_json(folder / "generation_config.json", _generation(header, tokenizer))
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(f"---\nlicense: {header.metadata.get('general.license', 'unknown')}\n---\n", encoding="utf-8")
    link = folder / GGUF
    link.unlink(missing_ok=True)
    link.symlink_to(header.path)
    write_json(folder / _STAMP, stamp)


def _generation(header: GGUFHeader, tokenizer: Tokenizer | None) -> dict:
    """generation_config.json: what the file advises for sampling, and the tokens that end a reply."""
    keys = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p"}
    advised = {name: header.metadata.get(f"general.sampling.{key}") for name, key in keys.items()}
    values = {name: round(value, 6) for name, value in advised.items() if value is not None}
    return values if tokenizer is None else values | {"eos_token_id": tokenizer.eos_ids}
