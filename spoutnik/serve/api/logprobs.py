"""Log-probabilities of tokens, in the shapes of both APIs."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from tokenizers.pre_tokenizers import ByteLevel

from spoutnik.text.tokenizer import Tokenizer

LEAST = -9999.0  # JSON knows no minus infinity


def _byte_characters() -> dict[str, int]:
    """The characters by which byte-level vocabularies write bytes. Printable ones of Latin-1 stand for themselves, the others
    for those that are missing, in order."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)).difference(own))
    table = {chr(byte): byte for byte in own} | {chr(256 + place): byte for place, byte in enumerate(others)}
    assert set(table) == set(ByteLevel.alphabet())
    return table


BYTES = _byte_characters()


spelled_once = lru_cache(maxsize=1 << 18)  # evaluations ask for the same tokens again and again


@spelled_once
def token_text(tokenizer: Tokenizer, token: int) -> str:
    """As clients see it; a part of a character is spelled in bytes, so that two of them are not the same text."""
    text = tokenizer.decode([token], keep_special=True)
    if "\ufffd" not in text:
        return text
    found = token_bytes(tokenizer, token)
    return text if found is None else "bytes:" + "".join(f"\\x{byte:02x}" for byte in found)


@spelled_once
def token_bytes(tokenizer: Tokenizer, token: int) -> list[int] | None:
    text = tokenizer.decode([token], keep_special=True)
    if "\ufffd" not in text:
        return list(text.encode())
    written = tokenizer.bpe.id_to_token(token) or ""
    return [BYTES[character] for character in written] if set(written) <= BYTES.keys() else None


@spelled_once
def _length(tokenizer: Tokenizer, token: int) -> int:
    """Of its text, without what is no whole character."""
    return len(tokenizer.decode([token], keep_special=True).replace("\ufffd", ""))


def chat_logprobs(tokenizer: Tokenizer, ids: Sequence[int], likely: Sequence[dict[int, float]], top: int) -> list[dict]:
    """`logprobs.content` of chat completions. likely: for each token the likeliest ones and itself. Special tokens are no
    part of an answer."""
    def entry(token: int, logprob: float) -> dict:
        return {"token": token_text(tokenizer, token), "logprob": max(logprob, LEAST), "bytes": token_bytes(tokenizer, token)}

    return [entry(token, at[token]) | {"top_logprobs": [entry(*item) for item in list(at.items())[:top]]}
            for token, at in zip(ids, likely) if tokenizer.decode([token])]


def text_logprobs(tokenizer: Tokenizer, ids: Sequence[int], likely: Sequence[dict[int, float] | None], offset: int = 0,
                  unseen: int = 0) -> dict:
    """`logprobs` of completions, of tokens whose text begins at `offset`; the first `unseen` are not in the text (a beginning
    of sentence). A prompt's first token has none."""
    lengths = [0 if place < unseen else _length(tokenizer, token) for place, token in enumerate(ids)]
    return {"tokens": [token_text(tokenizer, token) for token in ids],
            "token_logprobs": [at and max(at[token], LEAST) for token, at in zip(ids, likely)],
            "top_logprobs": [at and _by_text(tokenizer, at) for at in likely],
            "text_offset": list(accumulate(lengths, initial=offset))[:-1]}


def _by_text(tokenizer: Tokenizer, likely: dict[int, float]) -> dict[str, float]:
    """Two tokens may have the same text: the likelier one counts."""
    found: dict[str, float] = {}
    for token, logprob in likely.items():
        text = token_text(tokenizer, token)
        found[text] = max(found.get(text, LEAST), logprob)
    return found
