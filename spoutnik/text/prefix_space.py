"""The space that sentencepiece tokenizers put before a text ("▁" before its first word), which byte-level ones do not."""

import json

from tokenizers import Tokenizer as BPE
from tokenizers import decoders, models, pre_tokenizers

SPACE = "▁"
LEADING_SPACES = r"\A +"  # what some take away before a text's first word
LLAMA_CLASSES = ("LlamaTokenizer", "CodeLlamaTokenizer")


def without_prefix_space(bpe: BPE) -> BPE:
    """The same tokenizer for text that goes on with other text: it puts nothing before the first word, and takes no space away
    there. `bpe` itself where it never does."""
    parts = {"normalizer": bpe.normalizer, "pre_tokenizer": bpe.pre_tokenizer}
    states = {name: None if part is None else json.loads(part.__getstate__()) for name, part in parts.items()}
    bare = {name: _bare(state) for name, state in states.items()}
    if bare == states:
        return bpe
    return BPE.from_str(json.dumps(json.loads(bpe.to_str()) | bare))


def _bare(state: object) -> object:
    """A normalizer or pre-tokenizer, as tokenizer.json describes it, without what it puts or takes before a text."""
    if isinstance(state, list):
        return [_bare(part) for part in state if not (isinstance(part, dict) and _belongs_to_a_beginning(part))]
    if not isinstance(state, dict):
        return state
    if _belongs_to_a_beginning(state):
        return None
    if state.get("type") == "Metaspace":
        return state | {"prepend_scheme": "never"}
    if state.get("type") == "ByteLevel":
        return state | {"add_prefix_space": False}
    return {key: _bare(value) for key, value in state.items()}


def _belongs_to_a_beginning(state: dict) -> bool:
    return state.get("type") == "Prepend" or (state.get("type") == "Replace" and state["pattern"] == {"Regex": LEADING_SPACES})


def as_its_class_says(bpe: BPE, config: dict) -> BPE:
    """A tokenizer of the class LlamaTokenizer splits as `legacy` and `add_prefix_space` of tokenizer_config.json say, whatever
    tokenizer.json says (transformers' rule): the space comes before the first word of a text alone (legacy false, and where the
    key is missing), or also after each special token, or nowhere. Other tokenizers, and byte-level ones of the name, are read
    as they are written."""
    name = str(config.get("tokenizer_class")).removesuffix("Fast")
    if name not in LLAMA_CLASSES or not isinstance(bpe.model, models.BPE) or "ByteLevel" in decoder_kinds(bpe):
        return bpe
    stated = config.get("add_prefix_space")
    prefix, legacy = stated is None or bool(stated), bool(config.get("legacy")) and name == "LlamaTokenizer"
    bpe.normalizer = None
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(
        SPACE, prepend_scheme=("always" if legacy else "first") if prefix else "never", split=False)
    strip = [decoders.Strip(content=" ", left=1)] if prefix else []
    bpe.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return bpe


def decoder_kinds(bpe: BPE) -> set[str]:
    """The types of the parts of a decoder."""
    state = None if bpe.decoder is None else json.loads(bpe.decoder.__getstate__())
    parts = state["decoders"] if state is not None and state["type"] == "Sequence" else [state]
    return {"None" if part is None else part["type"] for part in parts}
