"""The tokenizer of a GGUF file, as tokenizer.json and tokenizer_config.json would have it. Does not import torch.

Source: llama.cpp's llama-vocab.cpp, for what its names of pre-tokenizers, its types of tokens and missing keys mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as BPE

from spoutnik.errors import RunError, UserError
from spoutnik.text.chat_template import ChatTemplates
from spoutnik.text.prefix_space import SPACE
from spoutnik.text.sentencepiece_tokenizer import merges_by_score
from spoutnik.text.thought_marks import GGUF_KEYS, KEY
from spoutnik.text.tiktoken_file import KIMI, LLAMA, QWEN
from spoutnik.text.tokenizer import SPECIAL_TOKENS, Tokenizer

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # types of tokens
# Tokens that end a reply wherever a vocabulary has them as control tokens, as llama.cpp has it.
_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|eom_id|>", "<end_of_turn>", "<|endoftext|>", "<｜end▁of▁sentence｜>")


@dataclass(frozen=True)
class Split:
    """How text is cut before the merges: by these patterns one after the other, then by GPT-2's where `gpt2`. whole_words: a
    piece that is a token is taken as it is. composes: text is brought to NFC. bos: it begins with one where no key says."""

    patterns: tuple[str, ...] = ()
    gpt2: bool = False
    whole_words: bool = False
    composes: bool = False
    bos: bool = False


_CJK, _DIGIT = "[一-龥ࠀ-一가-퟿]+", r"\p{N}"
_GPT2, _DIGITS = Split(gpt2=True), Split((_DIGIT,), gpt2=True)
_OWN = Split((r" ?\d",), gpt2=True)  # of the models that are trained here
_LLAMA = Split((LLAMA.pattern,), whole_words=True, bos=True)
_QWEN, _R1_QWEN = Split((QWEN.pattern,), composes=True), Split((QWEN.pattern,))
# llama.cpp lists the letters with case one by one.
_DEEPSEEK_LLM = Split((r"[\r\n]", r"\s?[\p{Lu}\p{Ll}\p{Lt}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", _CJK, _DIGIT))
_DEEPSEEK_CODER = Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, _DIGIT))
_DEEPSEEK_V3 = Split((r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                      r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                      r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"))
SPLITS = {
    "llama-bpe": _LLAMA, "llama3": _LLAMA, "llama-v3": _LLAMA, "qwen2": _QWEN, "deepseek-r1-qwen": _R1_QWEN,
    "smollm": _DIGITS, "starcoder": _DIGITS, "refact": _DIGITS, "command-r": _DIGITS, "codeshell": _DIGITS,
    "gpt-2": _GPT2, "phi-2": _GPT2, "olmo": _GPT2, "mpt": _GPT2, "trillion": _GPT2,
    "deepseek-llm": _DEEPSEEK_LLM, "deepseek-coder": _DEEPSEEK_CODER, "deepseek-v3": _DEEPSEEK_V3,
    "kimi-k2": Split((KIMI.pattern,), whole_words=True)}


def gguf_tokenizer(metadata: Mapping[str, object], path: Path) -> Tokenizer | None:
    """The tokenizer of this file; None where it has no vocabulary.

    Raises:
        UserError: its kind is not read here. RunError: the vocabulary is damaged.
    """
    vocabulary = Vocabulary(metadata, path)
    kind = vocabulary.key("model", "no_vocab")
    if kind == "no_vocab":
        return None
    if kind not in ("gpt2", "llama"):
        raise UserError(f"{path}: tokenizer.ggml.model = {kind!r}: is not read here; gpt2 (byte-level BPE) and llama "
                        "(sentencepiece) are. Give the model's folder of safetensors.")
    split = _split(vocabulary) if kind == "gpt2" else None
    bpe = _byte_level(vocabulary, split) if split is not None else _sentencepiece(vocabulary)
    bpe.add_tokens(vocabulary.added())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding")):
        if (text := vocabulary.special(key)) is not None:
            config[name] = text
    config["add_bos_token"] = bool(vocabulary.key("add_bos_token", split is None or split.bos)) and "bos_token" in config
    if config["add_bos_token"]:
        bos = config["bos_token"]
        bpe.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A $B",
                                                           special_tokens=[(bos, bpe.token_to_id(bos))])
    if not vocabulary.ends():
        raise RunError(f"{path}: names no token that ends a reply (tokenizer.ggml.eos_token_id). Convert the model again "
                       "with a present llama.cpp, or give its folder of safetensors.")
    marks = [metadata.get(key) for key in GGUF_KEYS]
    if all(isinstance(mark, str) for mark in marks):
        config[KEY] = dict(zip(("start", "end"), marks))
    keys = {"default": "tokenizer.chat_template", "tool_use": "tokenizer.chat_template.tool_use"}
    sources = {name: text for name, key in keys.items() if isinstance(text := metadata.get(key), str)}
    return Tokenizer(bpe, ChatTemplates(sources, f"{path}: tokenizer.chat_template"), config, vocabulary.ends())


class Vocabulary:
    """The keys of a file's tokenizer, checked: texts and types of tokens by id."""

    def __init__(self, metadata: Mapping[str, object], path: Path):
        self._metadata, self.path = metadata, path
        self.texts: Sequence[str] = self._list("tokens", str)
        self.types: Sequence[int] = self._list("token_type", int) or [_NORMAL] * len(self.texts)
        if len(self.types) != len(self.texts):
            raise self.damaged("token_type", f"has {len(self.types)} entries for {len(self.texts)} tokens")

    def key(self, name: str, default: object = None) -> object:
        return self._metadata.get(f"tokenizer.ggml.{name}", default)

    def _list(self, name: str, kind: type) -> list:
        values = self.key(name, [])
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise self.damaged(name, "is no list of the right kind")
        return values

    def damaged(self, name: str, why: str) -> RunError:
        return RunError(f"{self.path}: tokenizer.ggml.{name} {why}. Fetch the file again.")

    def merges(self) -> list[tuple[str, str]]:
        pairs = [tuple(line.split(" ")) for line in self._list("merges", str)]
        known = self.ids()
        wrong = next((pair for pair in pairs if len(pair) != 2 or not {*pair, "".join(pair)} <= known.keys()), None)
        if wrong is not None or not pairs:
            raise self.damaged("merges", f"joins {' and '.join(wrong)!r}, which are no tokens" if wrong else "is missing")
        return pairs

    def scores(self) -> list[float]:
        scores = self._list("scores", float)
        if len(scores) != len(self.texts):
            raise self.damaged("scores", f"has {len(scores)} entries for {len(self.texts)} tokens")
        return scores

    def ids(self) -> dict[str, int]:
        """Without the rows of the embedding that stand for no token. Of two tokens of one text the first counts."""
        ids: dict[str, int] = {}
        for i, (text, kind) in enumerate(zip(self.texts, self.types)):
            if kind != _UNUSED:
                ids.setdefault(text, i)
        return ids

    def added(self) -> list[AddedToken]:
        return [AddedToken(self.texts[i], special=self.types[i] != _USER_DEFINED, normalized=False)
                for i in sorted(self.ids().values()) if self.types[i] in (_CONTROL, _UNKNOWN, _USER_DEFINED)]

    def special(self, name: str) -> str | None:
        """The text of a token that a key names by its id."""
        i = self.key(f"{name}_token_id")
        if i is None or i == 2**32 - 1:  # what some writers put for "none"
            return None
        if not isinstance(i, int) or not 0 <= i < len(self.texts):
            raise self.damaged(f"{name}_token_id", f"= {i} is no token")
        return self.texts[i] if self.types[i] != _UNUSED else None

    def ends(self) -> list[int]:
        """The tokens that end a reply: those that keys name, then those of known names."""
        ids = self.ids()
        texts = [text for name in ("eos", "eot", "eom") if (text := self.special(name)) is not None]
        texts += [text for text in _ENDS if text in ids and self.types[ids[text]] == _CONTROL]
        return [ids[text] for text in dict.fromkeys(texts)]


def _split(vocabulary: Vocabulary) -> Split:
    if tuple(vocabulary.texts[:len(SPECIAL_TOKENS)]) == SPECIAL_TOKENS and vocabulary.key("pre") == "trillion":
        return _OWN  # our own export: llama.cpp has no name for it
    name = vocabulary.key("pre")
    if name not in SPLITS:
        raise UserError(f"{vocabulary.path}: tokenizer.ggml.pre = {name!r}: how this tokenizer splits text is not known here. "
                        f"Known are {', '.join(SPLITS)}. Give the model's folder of safetensors.")
    return SPLITS[name]


def _byte_level(vocabulary: Vocabulary, split: Split) -> BPE:
    bpe = BPE(models.BPE(vocab=vocabulary.ids(), merges=vocabulary.merges(), ignore_merges=split.whole_words))
    if split.composes:
        bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split.gpt2)])
    bpe.decoder = decoders.ByteLevel()
    return bpe


def _sentencepiece(vocabulary: Vocabulary) -> BPE:
    """The space comes before a text's first word and after each special token, as llama.cpp has it."""
    ids = vocabulary.ids()
    joined = {text: i for text, i in ids.items() if vocabulary.types[i] == _NORMAL}
    unknown = vocabulary.special("unknown")
    bpe = BPE(models.BPE(vocab=ids, merges=merges_by_score(joined, vocabulary.scores()), unk_token=unknown, fuse_unk=True,
                         byte_fallback=True))
    prefix = bool(vocabulary.key("add_space_prefix", True))
    prepend, strip = ([normalizers.Prepend(SPACE)], [decoders.Strip(" ", 1, 0)]) if prefix else ([], [])
    bpe.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", SPACE)])
    bpe.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return bpe
