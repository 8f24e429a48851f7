"""Adapters on their way out: the sum with their base as a model's folder, written tensor by tensor, or the adapter in the one
form that PEFT, vLLM and llama.cpp read alike."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from spoutnik.engine.quantization.packed_base import pack_base, packed_and_back
from spoutnik.errors import RunError, UserError
from spoutnik.export import gguf_file
from spoutnik.export.gguf_metadata import refuse_unreadable
from spoutnik.export.model_card import provenance
from spoutnik.export.readers import equality
from spoutnik.export.tensors import DTYPES, converted
from spoutnik.files import read_json
from spoutnik.model.adapter_file import Adapter, attach_adapter, read_adapter
from spoutnik.model.adapter_merge import Survival
from spoutnik.model.checkpoint import GGUF, Checkpoint
from spoutnik.model.lora import adaptable
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import Reader, load_model
from spoutnik.recipe.adapters import ADAPTER
from spoutnik.recipe.schema import load_recipe
from spoutnik.recipe.starts import CHECKPOINT, folder_of
from spoutnik.text.tokenizer import Tokenizer

FORMATS = {"lora": "peft", "lora-gguf": "llama.cpp", "merged": "transformers"}  # and who reads them
_DORA = "vLLM and llama.cpp refuse DoRA's magnitudes; PEFT reads them. For the others: --format merged."
_MOE = ("PEFT with transformers 5 takes the names of feed-forward maps of a model with experts for the fused experts' own: of "
        "this adapter it reads attention alone (and adapters of routed experts). For all of it: --format merged.")


class MergingReader(Reader):
    """A checkpoint whose adapted weights are read as their sums with the adapter, in `dtype` or, where that is None, the stored
    type. Of an adapter of a packed base, all weights that were packed are read rounded as they were. survival: of those read so
    far."""

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter, dtype: torch.dtype | None):
        super().__init__(checkpoint)
        self._parts = {f"model.{name}.weight": part for name, part in adapter.parts.items()}
        self._dtype, self._packed, self.survival = dtype, adapter.packed, Survival()
        # GGUF's blocks are read as float32 and used and written as bfloat16 (`hf.entries`): what is lost there counts.
        self._blocks = {name for name, stored in checkpoint.tensors.items() if stored.is_blocks}
        with torch.device("meta"):
            maps = adaptable(Transformer(checkpoint.config, rotary=torch.empty(0)))
        self._rounded = {f"model.{name}.weight" for name in maps} if adapter.packed else set()

    @torch.no_grad()
    def read(self, name: str) -> Tensor:
        """The tensor as stored, or the sum. Raises RunError where float16 is too small for it."""
        stored = super().read(name)
        if name in self._blocks and self._dtype is None:
            stored = stored.to(torch.bfloat16)
        base = packed_and_back(stored, self._packed) if name in self._rounded else stored
        if name not in self._parts:
            return converted(base, self._dtype or stored.dtype, name) if name in self._rounded else stored
        merged = self._parts[name].merged(base)
        rounded = converted(merged, self._dtype or stored.dtype, name)
        self.survival.add(base, merged, rounded)
        return rounded


def open_adapter(folder: Path, path: Path) -> Adapter:
    """The adapter in `path`, which belongs to the model in `folder`: checked against its weights, which are mapped, not read.

    Raises:
        UserError: it belongs to another model, or the model's weights are in FP8.
    """
    checkpoint = Checkpoint.open(folder)
    if checkpoint.config.quantization_config is not None:
        raise UserError(f"{folder}: its weights are in FP8, to which nothing can be added. Export it with --format hf --dtype "
                        "bf16 first, and give that folder.")
    adapter = read_adapter(path)
    attach_adapter(load_model(folder, None, mapped=True), adapter, path)
    return adapter


def merging_reader(checkpoint: Checkpoint, adapter: Adapter, dtype: str | None) -> MergingReader:
    return MergingReader(checkpoint, adapter, DTYPES[dtype] if dtype else None)


def stage_adapter(folder: Path, format: str) -> tuple[Path, Path]:
    """The base and the adapter of a stage that trained one, from its folder in a run.

    Raises:
        UserError: the folder holds no adapter of its own, or its base is not there any more.
    """
    path = folder / ADAPTER
    if not path.exists():
        raise UserError(f"--format {format}: needs --adapter, the folder of an adapter of this model: {folder} holds none that "
                        "a stage trained.")
    start, run = read_json(folder / "manifest.json")["inputs"]["start"], folder.parent.parent
    remedy = f"Give the base itself: spoutnik export BASE --adapter {path} --format {format}."
    if CHECKPOINT in start:
        recipe = run / "recipe.yaml"
        checkpoints = load_recipe(recipe).checkpoints if recipe.exists() else {}
        if start["stage"] not in checkpoints:
            raise UserError(f"{recipe}: does not say where models.{start['stage']} is, the adapter's base. {remedy}")
        return folder_of(start["stage"], checkpoints[start["stage"]], str(recipe), weights=True), path
    base = run / read_json(run / "run.json")["stages"].get(start["stage"], "") if (run / "run.json").exists() else run
    manifest = base / "manifest.json"
    if not manifest.exists() or read_json(manifest)["content"] != start["content"]:
        raise UserError(f"{folder}: the model of stage '{start['stage']}' on which its adapter was trained is not in {run} any "
                        f"more. {remedy}")
    return base, path


def agreement(format: str, python: Path, checkpoint: Checkpoint, tokenizer: Tokenizer, adapter: Adapter, source: Path,
              written: Path) -> tuple[equality.Agreement | None, str]:
    """What the format's reader makes of the files in `written`, and a sentence for the user; None where the interpreter has no
    such reader, or it is known not to read this kind. source: where the adapter was read, for messages.

    Raises:
        RunError: the reader does not read them, or computes something else.
    """
    reader = FORMATS[format]
    version = equality.present_readers(python).get(reader)
    if version is None:
        return None, equality.absent(reader, python)
    if format == "lora" and _MOE in notes_of(adapter, checkpoint.config.has_experts):
        return None, "Not checked: PEFT does not read all of this adapter."
    if format == "lora" and (checkpoint.folder / GGUF).exists():
        return None, "Not checked: PEFT does not read a base that is a GGUF file."
    ours = equality.Ours.of(checkpoint.folder, adapter, source, tokenizer)
    if format == "merged":
        result = equality.merged_agreement(version, python, written, ours)
    elif format == "lora":
        result = equality.adapter_agreement(reader, version, python, checkpoint.folder, written, ours)
    else:
        with TemporaryDirectory(dir=written.parent) as folder:
            base = Path(folder) / "base.gguf"
            _write_base(base, checkpoint)
            result = equality.adapter_agreement(reader, version, python, base, written, ours)
    return result, result.sentence()


def _write_base(path: Path, checkpoint: Checkpoint) -> None:
    """The base as a GGUF file of float32 without tokens: prompts are given as ids, and no rounding hides what is compared."""
    refuse_unreadable(checkpoint.config)
    needed, free = gguf_file.file_bytes(checkpoint, "f32"), shutil.disk_usage(path.parent).free
    if needed > free:
        raise RunError(f"{path.parent}: the check needs the base in float32 for a while, {needed / 1e9:.1f} GB, and the disk "
                       f"has {free / 1e9:.1f} GB left. Free some space, or add --no-check.")
    gguf_file.write_file(path, checkpoint, None, "f32", provenance(checkpoint.folder))


def distance_of_bases(checkpoint: Checkpoint, adapter: Adapter, source: Path, tokenizer: Tokenizer, lossy: bool) -> list[str]:
    """A sentence on an adapter of a packed base, which other programs put beside the unrounded weights; none of another.

    Raises:
        UserError: what they compute is further from what was trained than half of what the adapter changes, and not `lossy`.
    """
    if adapter.packed is None:
        return []
    model = pack_base(load_model(checkpoint.folder, None, torch.float32, mapped=True), adapter.packed)
    prompts = equality.prompts_of(tokenizer, checkpoint.config.max_position_embeddings)
    base = equality.logits_of(model, prompts)
    trained = equality.logits_of(attach_adapter(model, adapter, source), prompts)
    beside = equality.Ours.of(checkpoint.folder, adapter, source, tokenizer).adapted
    gap, effect = equality.kl(trained, beside), equality.kl(base, trained)
    sentence = (f"was trained beside the base in {adapter.packed}, and other programs put it beside the unrounded weights: KL "
                f"{gap:.1e} nats a token from what was trained, where the adapter changes {effect:.1e}.")
    if gap > effect / 2 and not lossy:
        raise UserError(f"{source}: {sentence} --format merged writes exactly what was trained; --lossy writes the adapter all "
                        "the same.")
    return [f"The adapter {sentence} --format merged writes exactly what was trained."]


def notes_of(adapter: Adapter, has_experts: bool) -> list[str]:
    """What some readers of the adapter do not do, in sentences."""
    dora = any(part.magnitude is not None for part in adapter.parts.values())
    feed_forward = has_experts and any(".mlp." in name and ".experts." not in name for name in adapter.parts)
    return [note for note, applies in ((_DORA, dora), (_MOE, feed_forward)) if applies]
