"""A tokenizer with a few tokens more than its model has embeddings for, as those have that were added without training."""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer as BPE

MOST = 256  # tokens too many, and no more than one in eight: beyond, the tokenizer is another model's


def tokens_needed(bpe: BPE) -> int:
    """The highest id and one."""
    return max(bpe.get_vocab().values(), default=-1) + 1


def without_tokens_beyond(bpe: BPE, vocab_size: int, path: Path) -> tuple[BPE, set[str]]:
    """The tokenizer without tokens that the model has no embedding for, and these: text that spells one is encoded otherwise,
    and no id of one is ever fed. They are named on stderr, once. One of which there are too many is returned as it is.

    path: of the tokenizer's file.
    """
    extra = tokens_needed(bpe) - vocab_size
    if not 0 < extra <= min(MOST, vocab_size // 8):
        return bpe, set()
    removed = {text for text, i in bpe.get_vocab().items() if i >= vocab_size}
    if path not in _told:
        _told.add(path)
        names = ", ".join(map(repr, sorted(removed)[:5])) + (", ..." if len(removed) > 5 else "")
        print(f"{path}: has tokens that the model has no embedding for (config.json: vocab_size = {vocab_size}): {names}. They "
              "are left out: they can be neither read nor generated.", file=sys.stderr)
    content = json.loads(bpe.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < vocab_size]
    content["model"] |= _model_without(content["model"], removed, vocab_size)
    if any(i >= vocab_size for i in bpe.encode("").ids):  # what every text begins or ends with
        content["post_processor"] = None
    return BPE.from_str(json.dumps(content)), removed


_told: set[Path] = set()


def _model_without(model: dict, removed: set[str], vocab_size: int) -> dict:
    """The keys of a model that change."""
    if isinstance(model["vocab"], list):  # Unigram's, by id
        return {"vocab": model["vocab"][:vocab_size]}
    changed = {"vocab": {text: i for text, i in model["vocab"].items() if i < vocab_size}}
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        changed["merges"] = [[left, right] for left, right in pairs
                             if removed.isdisjoint((left, right, left + right.removeprefix(prefix)))]
    return changed
