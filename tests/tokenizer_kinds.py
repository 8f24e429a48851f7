"""Small tokenizers of every kind that published models have, in folders as they are published."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as BPE

from spoutnik.text.sentencepiece_tokenizer import read_sentencepiece_tokenizer

MODELS = Path(__file__).parent / "text" / "sentencepiece"
TEXTS = ["Once upon a time there was a cat, 12 cats and 30 dogs.\n", "Il était une fois un chat : \"bonjour\" !\n\n",
         "def f(x): return x + 1", "<|user|> says [INST] </s", "the time, the times and the timer"] * 4
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
TEMPLATE = ("{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
            "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LLAMA_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def _byte_level(bos: bool) -> BPE:
    bpe = BPE(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=330, show_progress=False,
                                                       special_tokens=list(NAMED.values())[::-1],
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if bos:
        _put_bos(bpe)
    return bpe


def _put_bos(bpe: BPE) -> None:
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B",
                                                       special_tokens=[("<s>", bpe.token_to_id("<s>"))])


def _sentencepiece_bpe() -> BPE:
    """A vocabulary in sentencepiece's order: special tokens, bytes, pieces."""
    learned = BPE(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "▁")
    learned.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    learned.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=140, show_progress=False))
    model = json.loads(learned.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *BYTES, *sorted(model["vocab"], key=model["vocab"].get)]
    bpe = BPE(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[tuple(m) for m in model["merges"]],
                         unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    return bpe


def _llama(prepend: str) -> BPE:
    """prepend: how the space comes before a text: "normalizer" (Llama-2's file), a scheme of Metaspace, or "none"."""
    bpe = _sentencepiece_bpe()
    if prepend == "normalizer":
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif prepend == "none":
        bpe.normalizer = normalizers.Replace(" ", "▁")
    else:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    strip = [] if prepend == "none" else [decoders.Strip(" ", 1, 0)]
    bpe.decoder = decoders.Sequence([*LLAMA_DECODER, *strip])
    _put_bos(bpe)
    return bpe


def _unigram() -> BPE:
    bpe = BPE(models.Unigram())
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    bpe.train_from_iterator(TEXTS, trainers.UnigramTrainer(vocab_size=150, show_progress=False, unk_token="<unk>",
                                                           special_tokens=["<unk>", "<s>", "</s>"]))
    bpe.decoder = decoders.Metaspace()
    return bpe


def _converted(name: str) -> tuple[BPE, dict]:
    """A model of sentencepiece's own format, as it is saved as tokenizer.json."""
    config: dict = {}
    return read_sentencepiece_tokenizer(MODELS / f"{name}.model", config, {}, {}), config


# name -> (tokenizer, keys of tokenizer_config.json)
KINDS = {
    "byte_level": lambda: (_byte_level(bos=False), {}),
    "byte_level_bos": lambda: (_byte_level(bos=True), {}),
    "llama_as_written": lambda: (_llama("normalizer"), {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "llama_legacy": lambda: (_llama("normalizer"), {"tokenizer_class": "LlamaTokenizer", "legacy": True}),
    "llama": lambda: (_llama("normalizer"), {"tokenizer_class": "LlamaTokenizerFast", "legacy": False, "add_bos_token": True}),
    "llama_no_prefix": lambda: (_llama("normalizer"), {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}),
    "metaspace_first": lambda: (_llama("first"), {}),
    "metaspace_always": lambda: (_llama("always"), {}),
    "gemma_like": lambda: (_llama("none"), {}),
    "unigram": lambda: (_unigram(), {}),
    "converted_bpe": lambda: _converted("llama"),
    "converted_unigram": lambda: _converted("unigram_bytes"),
}
SENTENCEPIECE = [name for name in KINDS if not name.startswith("byte_level")]


def write(kind: str, folder: Path) -> Path:
    """The files of a tokenizer; its vocabulary has fewer than 450 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    bpe, config = KINDS[kind]()
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(NAMED | config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
