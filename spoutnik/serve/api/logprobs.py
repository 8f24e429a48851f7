"""Log-probabilities of tokens, in the forms of chat completions and of completions."""

import codecs
from collections.abc import Sequence
from functools import lru_cache

from tokenizers.pre_tokenizers import ByteLevel

from spoutnik.text.tokenizer import Tokenizer

MIN_LOGPROB = -9999.0  # JSON has no minus infinity


def _byte_characters() -> dict[str, int]:
    """GPT-2's characters for bytes in byte-level vocabularies: Latin-1's printable ones stand for themselves, those from 256
    on for the other bytes, in order."""
    characters = sorted(ByteLevel.alphabet())
    printable = {character: ord(character) for character in characters if ord(character) < 256}
    return printable | dict(zip(characters[len(printable):], sorted(set(range(256)).difference(printable.values()))))


BYTES = _byte_characters()
cached = lru_cache(maxsize=1 << 18)  # evaluations ask for the same tokens again and again


@cached
def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The token's text inside of others, with its space; part of a character is written in bytes, so that different tokens have
    different texts."""
    text = _text_inside(tokenizer, token)
    if "\ufffd" not in text:
        return text
    spelled = token_bytes(tokenizer, token)
    return text if spelled is None else "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


def _text_inside(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.decode_after([token], [token], keep_special=True)


@cached
def token_bytes(tokenizer: Tokenizer, token: int) -> list[int] | None:
    text = _text_inside(tokenizer, token)
    if "\ufffd" not in text:
        return list(text.encode())
    if (byte := tokenizer.token_bytes(token)) is not None:
        return list(byte)
    characters = tokenizer.bpe.id_to_token(token) or ""
    return [BYTES[character] for character in characters] if set(characters) <= BYTES.keys() else None


def chat_logprobs(tokenizer: Tokenizer, ids: Sequence[int], candidates: Sequence[dict[int, float]], top: int) -> list[dict]:
    """`logprobs.content` of chat completions. candidates: at each token, the most likely ones and itself. Special tokens are
    left out."""
    def entry(token: int, logprob: float) -> dict:
        return {"token": token_text(tokenizer, token), "logprob": max(logprob, MIN_LOGPROB),
                "bytes": token_bytes(tokenizer, token)}

    return [entry(token, at[token]) | {"top_logprobs": [entry(*item) for item in list(at.items())[:top]]}
            for token, at in zip(ids, candidates) if tokenizer.decode([token])]


def prompt_logprobs(tokenizer: Tokenizer, candidates: Sequence[dict[int, float] | None],
                    count: int) -> list[dict | None]:
    """As vLLM has them: for each token of a prompt the `count` likeliest ones and itself, by id; none for the first. rank: None
    for one that is not among the likeliest."""
    return [at and {str(token): {"logprob": max(logprob, MIN_LOGPROB), "rank": rank if rank <= count else None,
                                 "decoded_token": token_text(tokenizer, token)}
                    for rank, (token, logprob) in enumerate(at.items(), start=1)} for at in candidates]


class TextOffsets:
    """Where the tokens of a text begin, however it is cut into deltas. A character of several tokens begins at the first."""

    def __init__(self):
        self.end, self._decoder = 0, codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, text: bytes) -> int:
        """text: the next token's."""
        start = self.end
        self.end += len(self._decoder.decode(text))
        return start


def text_logprobs(tokenizer: Tokenizer, ids: Sequence[int], candidates: Sequence[dict[int, float] | None],
                  offsets: TextOffsets, hidden: int = 0, prompt: str = "") -> dict:
    """`logprobs` of completions, of the next tokens of a text. The first `hidden` ones are not in the text (a beginning of
    sentence). A prompt's first token has no log-probability. prompt: the text that begins with the others, if it is echoed (a
    sentencepiece tokenizer puts a space before it that is not in the text)."""
    texts = [token_text(tokenizer, token) for token in ids]
    spelled = [bytes(token_bytes(tokenizer, token) or b"") for token in ids]
    if prompt and _leading_spaces("".join(texts[hidden:])) > _leading_spaces(prompt):
        texts[hidden] = tokenizer.decode(list(ids[hidden:hidden + 1]), keep_special=True)
        spelled[hidden] = texts[hidden].encode()
    return {"tokens": texts, "token_logprobs": [at and max(at[token], MIN_LOGPROB) for token, at in zip(ids, candidates)],
            "top_logprobs": [at and _by_text(tokenizer, at) for at in candidates],
            "text_offset": [offsets.end if i < hidden else offsets.add(text) for i, text in enumerate(spelled)]}


def _leading_spaces(text: str) -> int:
    return len(text) - len(text.lstrip(" "))


def _by_text(tokenizer: Tokenizer, candidates: dict[int, float]) -> dict[str, float]:
    """Of tokens that have the same text, the most likely one counts."""
    logprobs: dict[str, float] = {}
    for token, logprob in candidates.items():
        text = token_text(tokenizer, token)
        logprobs[text] = max(logprobs.get(text, MIN_LOGPROB), logprob)
    return logprobs
