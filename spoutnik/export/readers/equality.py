"""The equality check at the end of an export of an adapter: the program that is to read it computes logits on a few fixed
prompts, and its distribution is compared with ours.

Readers lose an adapter's scale, or parts of it, in silence; files that look right say nothing. So the check runs the reader
itself, here or in another environment, and measures KL(ours || reader) in nats a token. Beside it stand KL(base || adapted),
what the adapter changes at all, and KL(our base || reader's base), the rounding of the reader.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from spoutnik.errors import RunError, UserError
from spoutnik.model.adapter_file import Adapter, attach_adapter
from spoutnik.model.checkpoint import GGUF
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.parallel import cores
from spoutnik.text.tokenizer import Tokenizer

_ANSWER = Path(__file__).with_name("answer.py")
_NAMES = {"peft": "PEFT", "transformers": "transformers", "llama.cpp": "llama.cpp"}
_TEXTS = ("The capital of Italy is Rome, which lies on the river Tiber. Long before, people lived on its seven hills.",
          "Question: what is 12 + 30? Think first, then answer. 12 plus 30 is 42, so the answer is 42.",
          "Une usine fabrique douze pièces par heure ; en une journée de huit heures, elle en fabrique 96.",
          "def area(width, height):\n    return width * height\n\n\nprint(area(3, 4))  # 12\n")
_LONGEST = 48  # tokens of a prompt
_SHARE = 0.05  # of what the adapter changes: a reader that is further from us computes something else
_ROUNDING = 4  # times the reader's distance on the base alone, which no adapter explains


@dataclass(frozen=True)
class Agreement:
    """How far a reader is from us, in nats a token. kl: with the export; base_kl: with the base alone, 0 where the export is a
    whole model; effect: KL(base || adapted)."""

    reader: str
    version: str
    kl: float
    base_kl: float
    effect: float

    @property
    def is_told(self) -> bool:
        """Whether the reader's rounding is small beside what the adapter changes."""
        return _ROUNDING * self.base_kl < self.effect / 4

    @property
    def is_equal(self) -> bool:
        return self.kl <= _SHARE * self.effect + _ROUNDING * self.base_kl

    def sentence(self) -> str:
        numbers = (f"KL {self.kl:.1e} nats a token to ours; the adapter changes {self.effect:.1e}"
                   + (f", the reader's base differs by {self.base_kl:.1e}" if self.base_kl else ""))
        if not self.is_told:
            return (f"{_NAMES[self.reader]} {self.version} read it, but rounds more than the adapter changes, so equality "
                    f"cannot be told ({numbers}).")
        return f"{_NAMES[self.reader]} {self.version} computes the same: {numbers}."


def present_readers(python: Path) -> dict[str, str]:
    """Name -> version of the readers that an interpreter has.

    Raises:
        UserError: it is no Python that runs.
    """
    try:
        shown = subprocess.run([python, _ANSWER], capture_output=True, text=True, timeout=120)
        return json.loads(shown.stdout) if shown.returncode == 0 else _fail(python, shown.stderr)
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        raise UserError(f"--readers {python}: does not run ({error}). Give the path of a Python interpreter, as "
                        "other-environment/bin/python.") from error


def _fail(python: Path, errors: str) -> dict[str, str]:
    raise UserError(f"--readers {python}: does not answer ({_last_line(errors)}). Give the path of a Python interpreter that "
                    "has numpy and the readers.")


def absent(reader: str, python: Path) -> str:
    where = "this environment" if python == Path(sys.executable) else str(python)
    return (f"Not checked: {_NAMES[reader]} is not in {where}. To have it checked: --readers PYTHON, the interpreter of an "
            "environment that has it.")


def prompts_of(tokenizer: Tokenizer, positions: int) -> list[list[int]]:
    return [tokenizer.encode(text)[:min(_LONGEST, positions)] for text in _TEXTS]


def read_by(reader: str, version: str, python: Path, base: Path, adapter: Path | None,
            prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The reader's logits by "base" and "adapted" (positions, vocabulary).

    Raises:
        RunError: it does not read the files.
    """
    with TemporaryDirectory() as folder:
        out = Path(folder) / "logits.npz"
        request = {"reader": reader, "base": str(base), "adapter": None if adapter is None else str(adapter),
                   "prompts": prompts, "threads": cores(), "out": str(out)}
        shown = subprocess.run([python, _ANSWER, "read"], input=json.dumps(request), capture_output=True, text=True,
                               env=os.environ | {"HF_HUB_OFFLINE": "1"})
        if shown.returncode or not out.exists():
            raise RunError(f"{_NAMES[reader]} {version} does not read the export: {_last_line(shown.stderr)}. Nothing was "
                           "written; --no-check writes it without asking a reader.")
        with np.load(out) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _last_line(errors: str) -> str:
    return next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "no message")


@torch.no_grad()
def logits_of(model: Transformer, prompts: Sequence[Sequence[int]]) -> Tensor:
    """(positions of all prompts, vocabulary), float32."""
    return torch.cat([model(torch.tensor([ids]))[0] for ids in prompts])


def kl(p: Tensor, q: Tensor) -> float:
    """KL(p || q) of logits (positions, vocabulary), in nats, the mean over positions."""
    p, q = p.double().log_softmax(-1), q.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean().clamp(min=0))


@dataclass(frozen=True)
class Ours:
    """What we compute on the prompts: with the base, and with base and adapter unmerged, both in float32."""

    prompts: list[list[int]]
    base: Tensor
    adapted: Tensor

    @staticmethod
    def of(folder: Path, adapter: Adapter, source: Path, tokenizer: Tokenizer) -> "Ours":
        dtype = torch.float32 if (folder / GGUF).exists() else None  # None: blocks would become bfloat16
        model = load_model(folder, dtype, torch.float32, mapped=True)
        prompts = prompts_of(tokenizer, model.config.max_position_embeddings)
        base = logits_of(model, prompts)
        attach_adapter(model, adapter, source)
        return Ours(prompts, base, logits_of(model, prompts))

    @property
    def effect(self) -> float:
        return kl(self.base, self.adapted)


def adapter_agreement(reader: str, version: str, python: Path, base: Path, written: Path, ours: Ours) -> Agreement:
    """Of an adapter's files beside a base that the reader loads."""
    theirs = read_by(reader, version, python, base, written, ours.prompts)
    return checked(Agreement(reader, version, kl(ours.adapted, theirs["adapted"]), kl(ours.base, theirs["base"]), ours.effect))


def merged_agreement(version: str, python: Path, written: Path, ours: Ours) -> Agreement:
    """Of a folder that holds the sum: what transformers makes of it, against what we make of the same files."""
    same = logits_of(load_model(written, None, torch.float32, mapped=True), ours.prompts)
    theirs = read_by("transformers", version, python, written, None, ours.prompts)
    return checked(Agreement("transformers", version, kl(same, theirs["base"]), 0.0, ours.effect))


def checked(agreement: Agreement) -> Agreement:
    """Raises RunError where the reader computes something else."""
    if agreement.is_told and not agreement.is_equal:
        raise RunError(f"{_NAMES[agreement.reader]} {agreement.version} reads the export and computes something else: KL "
                       f"{agreement.kl:.1e} nats a token to ours, where the adapter changes {agreement.effect:.1e} and the "
                       f"bases differ by {agreement.base_kl:.1e}. Nothing was written. Use --format merged, or --no-check to "
                       "write it all the same.")
    return agreement
