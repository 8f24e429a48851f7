"""A byte-level BPE tokenizer in a GGUF file, and the name under which llama.cpp splits text before it merges."""

import json
import re

import gguf

from spoutnik.errors import RunError
from spoutnik.text.special_token_escape import END_THINK, THINK
from spoutnik.text.thought_marks import GGUF_KEYS
from spoutnik.text.tokenizer import Tokenizer

# A text that every pre-tokenizer here splits in a way of its own, and llama.cpp's names for those ways.
PROBE = "We'LL pay(123) 45 for\n\n  e\u0301te\u0301!?\n 日本 \u0639x_1\r\n"
SPLITS = {
    "qwen2": "We|'LL| pay|(|1|2|3|)| |4|5| for|\n\n| | e|\u0301te|\u0301!?\n| 日本| \u0639x|_|1|\r\n",
    "llama-bpe": "We|'LL| pay|(|123|)| |45| for|\n\n| | e|\u0301te|\u0301!?\n| 日本| \u0639x|_|1|\r\n",
    "kimi-k2": "We'LL| pay|(|123|)| |45| for|\n\n| | e\u0301te\u0301|!?\n| |日本| \u0639x|_|1|\r\n",
    "deepseek-v3": "We|'LL| pay|(|123|)| |45| for|\n\n| | e\u0301te\u0301|!?\n| |日本| \u0639x|_|1|\r\n",
    "deepseek-llm": "We|'|LL| pay|(|1|2|3|)| |4|5| for|\n|\n| | e|\u0301|te|\u0301|!?|\n| |日本| \u0639|x|_|1|\r|\n",
    "deepseek-coder": "We|'|LL| pay|(|1|2|3|)| |4|5| for|\n|\n| | e|\u0301|te|\u0301|!?|\n| |日本| \u0639x|_|1|\r|\n",
    "gpt-2": "We|'|LL| pay|(|123|)| 45| for|\n\n | e|\u0301|te|\u0301!?|\n| 日本| \u0639x|_|1|\r\n",
    "smollm": "We|'|LL| pay|(|1|2|3|)| |4|5| for|\n\n | e|\u0301|te|\u0301!?|\n| 日本| \u0639x|_|1|\r\n",
}
# Ours keeps the space before a number with its first digit, and splits the rest as GPT-2 does. No merge of ours crosses two
# digits, so GPT-2's way gives the same tokens; under this name llama.cpp has it without GPT-2's cleaning of spaces.
OWN_SPLIT = "We|'|LL| pay|(|1|2|3|)| 4|5| for|\n\n | e|\u0301|te|\u0301!?|\n| 日本| \u0639x|_|1|\r\n"
OWN_NAME = "trillion"
_LOOKS_SPECIAL = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
_UNKNOWN = ("llama.cpp has no pre-tokenizer like this model's: GPT-2's stands in for it. Token ids that it is given are "
            "exact; text that it tokenises itself may be split differently.")
_OWN = ("llama.cpp has no pre-tokenizer that splits numbers as this model's does: GPT-2's stands in for it. Token ids that "
        "it is given are exact; in text that it tokenises itself, space before numbers may be split otherwise.")


def split_name(tokenizer: Tokenizer) -> tuple[str, str | None]:
    """llama.cpp's name for how this tokenizer splits text (`tokenizer.ggml.pre`), and a warning where it is only similar."""
    pre_tokenizer = tokenizer.bpe.pre_tokenizer
    pieces = [] if pre_tokenizer is None else pre_tokenizer.pre_tokenize_str(PROBE)
    split = "|".join(PROBE[start:end] for _, (start, end) in pieces)
    if split == OWN_SPLIT:
        return OWN_NAME, _OWN
    return next(((name, None) for name, pieces in SPLITS.items() if pieces == split), ("gpt-2", _UNKNOWN))


def write_tokens(writer: gguf.GGUFWriter, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Tokens, merges, special ids, chat template. A vocabulary shorter than the embedding is filled with unused tokens."""
    model = json.loads(tokenizer.bpe.to_str())["model"]
    texts, types = vocabulary(tokenizer, vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_name(tokenizer)[0])
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    if tokenizer.bos_id is not None:
        writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    if len(tokenizer.eos_ids) > 1:
        writer.add_eot_token_id(tokenizer.eos_ids[1])
    writer.add_add_bos_token(tokenizer.bos_id is not None and tokenizer.start_ids == [tokenizer.bos_id])
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)
    if tokenizer.marks.stated:  # keys of ours, which other programs pass over
        for key, mark in zip(GGUF_KEYS, tokenizer.marks.pair):
            writer.add_string(key, mark)


def vocabulary(tokenizer: Tokenizer, vocab_size: int) -> tuple[list[str], list[int]]:
    """Token texts in order of their ids, with llama.cpp's types."""
    added = tokenizer.bpe.get_added_tokens_decoder()
    by_id = {i: text for text, i in tokenizer.bpe.get_vocab().items()}
    texts, types = [], []
    for i in range(vocab_size):
        texts.append(by_id.get(i, f"[PAD{i}]"))
        if i not in by_id:
            types.append(gguf.TokenType.UNUSED)
        elif i not in added:
            types.append(gguf.TokenType.NORMAL)
        elif texts[i] in (THINK, END_THINK, *tokenizer.marks.pair):  # as R1 publishes them: programs look for them in the text
            types.append(gguf.TokenType.USER_DEFINED)
        else:
            special = added[i].special or _LOOKS_SPECIAL.fullmatch(texts[i])
            types.append(gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED)
    return texts, types


def refuse_other_tokenizers(tokenizer: Tokenizer) -> None:
    """Raises RunError for what is no byte-level BPE."""
    content = json.loads(tokenizer.bpe.to_str())
    byte_level = '"ByteLevel"' in json.dumps([content.get("pre_tokenizer"), content.get("decoder")])
    if content["model"].get("type") != "BPE" or content["model"].get("byte_fallback") or not byte_level:
        raise RunError("tokenizer.json: is no byte-level BPE, the one kind that is written to GGUF. Use --format hf.")
