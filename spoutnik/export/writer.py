"""Export of a model: the request is checked, then one folder or file is written, complete or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.export import adapter as adapters
from spoutnik.export import adapter_gguf, gguf_file, hf
from spoutnik.export.gguf_metadata import differences, refuse_unreadable
from spoutnik.export.gguf_tokens import refuse_other_tokenizers, split_name
from spoutnik.export.model_card import model_card, provenance
from spoutnik.export.readers.equality import Agreement
from spoutnik.export.tensors import DTYPES
from spoutnik.files import disk_errors, install_folder, read_json, remove_folder, replacing
from spoutnik.loading import load_tokenizer
from spoutnik.model.adapter_file import Adapter, write_adapter
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.config import ARCHITECTURES
from spoutnik.model.gguf_names import ARCHITECTURES as GGUF_ARCHITECTURES
from spoutnik.model.weights import stored_dtype
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.units import parse_size

TYPES = {"hf": tuple(DTYPES), "gguf": tuple(gguf_file.TYPES), "merged": tuple(DTYPES), "lora": ("f32",),
         "lora-gguf": tuple(adapter_gguf.DTYPES)}  # what --dtype may say
_FILES = ("gguf", "lora-gguf")  # formats that are one file
# What an export may replace with --force: a folder that holds nothing else.
_EXPORTED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "*.jinja",
             "additional_chat_templates", "model*.safetensors", "model.safetensors.index.json", "README.md", "LICENSE*",
             "LICENCE*", "NOTICE*", "adapter_config.json", "adapter_model.safetensors", "base.json")
_QWEN = "transformers loads this tokenizer as it is only without trust_remote_code=True; with it, it refuses to."
_MTP = "transformers leaves the MTP layer in the files alone and says so when it loads them; other readers use it."


Check = Callable[[Path], "tuple[Agreement | None, str] | None"]  # of what was written, before it takes its place


@dataclass(frozen=True)
class Exported:
    """What was written. files: names inside the folder, or the file's; size: bytes; load: how to open it; notes: for users;
    readers: how far the program that reads it is from us, where that was checked."""

    path: Path
    architecture: str
    dtype: str
    files: list[str]
    size: int
    load: str
    notes: list[str]
    readers: list[Agreement] = field(default_factory=list)


def export(folder: Path, format: str, out: Path, dtype: str | None = None, shard_size: str = "5GB",
           licence: str | None = None, force: bool = False, adapter: Path | None = None, lossy: bool = False,
           readers: Path | None = None) -> Exported:
    """Writes the model in `folder` (Hugging Face layout) as `format`, "hf" or "gguf", to `out`; or, with an adapter of PEFT's
    kind for that model, or that of the stage whose folder it is, their sum ("merged") or the adapter itself ("lora",
    "lora-gguf").

    dtype: one of TYPES[format]; None keeps what the files store. force: replace an export that is there. lossy: write a sum
    whose adapter is mostly lost in rounding. readers: the Python interpreter whose packages are asked to read an adapter's
    export (readers/equality.py); None asks nobody.

    Raises:
        UserError: the request is wrong, or `out` is not to be overwritten; nothing was written.
        RunError: a file of the model is missing or damaged, the disk is full, or a reader computes something else; `out` is as
            it was.
    """
    folder, out = Path(folder), Path(out)
    if format not in TYPES:
        raise UserError(f"--format {format}: is unknown. Choose {', '.join(TYPES)}.")
    if dtype is not None and dtype not in TYPES[format]:
        raise UserError(f"--dtype {dtype}: cannot be written as {format}. Choose {', '.join(TYPES[format])}.")
    if adapter is not None and format not in adapters.FORMATS:
        raise UserError(f"--adapter {adapter}: is of --format {', '.join(adapters.FORMATS)}, not of {format}. Merge it first, "
                        "then export the folder that results.")
    if adapter is None and format in adapters.FORMATS:
        folder, adapter = adapters.stage_adapter(folder, format)
    limit = parse_size(shard_size)
    if limit is None:
        raise UserError(f"--shard-size {shard_size}: is no size. Write a number with KB, MB, GB, KiB, MiB or GiB, like 5GB.")
    _clear_leftovers(out)
    _check_target(folder, out, format, force)
    checkpoint, tokenizer = Checkpoint.open(folder), load_tokenizer(folder)
    if format == "gguf":
        return _export_gguf(checkpoint, tokenizer, out, dtype, licence)
    if format == "hf":
        return _export_hf(checkpoint, tokenizer, out, dtype, limit, licence)
    opened = adapters.open_adapter(folder, Path(adapter))

    def check(written: Path) -> tuple[Agreement | None, str] | None:
        return None if readers is None else adapters.agreement(format, readers, checkpoint, tokenizer, opened, adapter, written)

    if format in ("lora", "lora-gguf"):
        notes = adapters.distance_of_bases(checkpoint, opened, adapter, tokenizer, lossy)
        if format == "lora":
            return _export_lora(checkpoint, opened, out, notes, check)
        return _export_lora_gguf(checkpoint, opened, out, dtype or "f32", adapter, notes, check)
    reader = adapters.merging_reader(checkpoint, opened, dtype)
    lossless = f"--adapter {adapter}" if not lossy else None
    return _export_hf(checkpoint, tokenizer, out, dtype, limit, licence, reader, lossless, check)


def default_target(name: Path, folder: Path, format: str) -> Path:
    """The path of an export without --out: named after the model or, of a run, the run and the stage."""
    manifest = folder / "manifest.json"
    stage = f"-{read_json(manifest)['stage']}" if manifest.exists() and folder != name else ""
    ending = {"gguf": ".gguf", "lora": "-lora", "lora-gguf": "-lora.gguf", "merged": "-merged"}.get(format, "")
    return Path("exports") / f"{name.resolve().name}{stage}{ending}"


def _export_hf(checkpoint: Checkpoint, tokenizer: Tokenizer, out: Path, dtype: str | None, shard_size: int,
               licence: str | None, reader: adapters.MergingReader | None = None, lossless: str | None = None,
               check: Check = lambda written: None) -> Exported:
    """reader: of the sums with an adapter. lossless: refuse, by this name, sums that lose most of it."""
    config, origin = checkpoint.config, provenance(checkpoint.folder, licence)
    _check_space(out, sum(entry.size for entry in hf.entries(checkpoint, dtype)))
    notes = [note for note, applies in ((_MTP, config.num_nextn_predict_layers),
                                        (_QWEN, hf.splits_unlike_qwen(config, tokenizer))) if applies]
    splitting = split_name(tokenizer)[1] if origin.manifests else None
    card = model_card(config, origin, [*notes, *([splitting] if splitting else [])])
    with _replacing_folder(out) as temporary:
        hf.write_folder(temporary, checkpoint, tokenizer, dtype, shard_size, card, reader)
        if lossless is not None:
            reader.survival.refuse_loss(lossless, dtype or _stored(checkpoint))
        outcome = check(temporary)
    if reader is not None:
        notes.append(reader.survival.sentence(dtype or _stored(checkpoint)))
    notes, agreements = _with(notes, outcome)
    files = sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
    stored = "fp8" if config.quantization_config else _stored(checkpoint)
    return Exported(out, ARCHITECTURES[config.model_type], dtype or stored, files,
                    sum((out / file).stat().st_size for file in files),
                    f'AutoModelForCausalLM.from_pretrained("{out}"), AutoTokenizer.from_pretrained("{out}")', notes, agreements)


def _export_lora(checkpoint: Checkpoint, adapter: Adapter, out: Path, notes: list[str], check: Check) -> Exported:
    with _replacing_folder(out) as temporary:
        write_adapter(temporary, adapter)
        outcome = check(temporary)
    files = sorted(file.name for file in out.iterdir())
    notes, agreements = _with([*notes, *adapters.notes_of(adapter, checkpoint.config.has_experts)], outcome)
    return Exported(out, ARCHITECTURES[checkpoint.config.model_type], "f32", files,
                    sum((out / file).stat().st_size for file in files), f'PeftModel.from_pretrained(base, "{out}")', notes,
                    agreements)


def _export_lora_gguf(checkpoint: Checkpoint, adapter: Adapter, out: Path, dtype: str, source: Path, notes: list[str],
                      check: Check) -> Exported:
    adapter_gguf.refuse_unreadable_adapter(adapter.parts, checkpoint.config, source)
    with replacing(out, option="--out") as temporary:
        adapter_gguf.write_adapter_file(temporary, adapter.parts, checkpoint.config, out.stem, dtype)
        notes, agreements = _with(notes, check(temporary))
    return Exported(out, GGUF_ARCHITECTURES[checkpoint.config.model_type], dtype, [out.name], out.stat().st_size,
                    f"llama-cli --jinja -m BASE.gguf --lora {out}", notes, agreements)


def _with(notes: list[str], outcome: tuple[Agreement | None, str] | None) -> tuple[list[str], list[Agreement]]:
    """Notes with what the check of a reader says, and its numbers."""
    if outcome is None:
        return notes, []
    return [*notes, outcome[1]], [] if outcome[0] is None else [outcome[0]]


def _export_gguf(checkpoint: Checkpoint, tokenizer: Tokenizer, out: Path, dtype: str | None, licence: str | None) -> Exported:
    config, dtype = checkpoint.config, dtype or _stored(checkpoint)
    refuse_unreadable(config)
    refuse_other_tokenizers(tokenizer)
    _check_space(out, gguf_file.file_bytes(checkpoint, dtype))
    with replacing(out, option="--out") as temporary:
        gguf_file.write_file(temporary, checkpoint, tokenizer, dtype, provenance(checkpoint.folder, licence))
    splitting = split_name(tokenizer)[1]
    return Exported(out, GGUF_ARCHITECTURES[config.model_type], dtype, [out.name], out.stat().st_size,
                    f"llama-cli --jinja -m {out}", differences(config) + ([splitting] if splitting else []))


def _stored(checkpoint: Checkpoint) -> str:
    stored = stored_dtype(checkpoint)
    return next(name for name, dtype in DTYPES.items() if dtype == stored)


def _check_target(folder: Path, out: Path, format: str, force: bool) -> None:
    """Raises UserError where writing `out` would lose something."""
    if format in _FILES and out.suffix != ".gguf":
        raise UserError(f"--out {out}: llama.cpp looks for files that end in .gguf. Write --out {out}.gguf.")
    if out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UserError(f"--out {out}: holds the model that is exported. Name another place.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir()) and format not in _FILES):
        return
    if out.is_dir() == (format in _FILES):
        raise UserError(f"--out {out}: is a {'folder' if out.is_dir() else 'file'}, and {format} makes a "
                        f"{'file' if out.is_dir() else 'folder'}. Name another place.")
    foreign = [] if format in _FILES else [path.name for path in sorted(out.iterdir())
                                           if not any(path.match(pattern) for pattern in _EXPORTED)]
    if foreign:
        raise UserError(f"--out {out}: holds {foreign[0]}, which no export made. Name another place.")
    if not force:
        raise UserError(f"--out {out}: exists. Name another place, or add --force to replace it.")


def _clear_leftovers(out: Path) -> None:
    """Removes what killed exports to `out` left beside it; what one had only moved aside comes back."""
    for path in out.parent.glob(f".{escape(out.name)}.*-*"):
        kind, _, process = path.name.removeprefix(f".{out.name}.").partition("-")
        if kind not in ("writing", "replaced") or not process.isdigit() or _runs(int(process)):
            continue
        if kind == "replaced" and not out.exists():
            path.rename(out)
        elif path.is_dir():
            remove_folder(path)
        else:
            path.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def _check_space(out: Path, needed: int) -> None:
    """Raises RunError now rather than after an hour of writing."""
    place = next(path for path in out.resolve().parents if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise RunError(f"{out}: needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left. Free some space, "
                       "choose another --out or a smaller --dtype.")


@contextmanager
def _replacing_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder beside `out` that takes its place, flushed, when the block succeeds, and is gone when not."""
    temporary = out.with_name(f".{out.name}.writing-{os.getpid()}")
    with disk_errors(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_folder(temporary)
        try:
            temporary.mkdir()
            yield temporary
            install_folder(temporary, out, aside=out.with_name(f".{out.name}.replaced-{os.getpid()}"))
        finally:
            remove_folder(temporary)
