"""Special tokens that the small files beside a vocabulary name: which there are, and which ids they have."""

from collections.abc import Iterable, Mapping, Sequence

from tokenizers import AddedToken

from spoutnik.errors import RunError

RESERVED = "<|reserved_token_{}|>"  # transformers' name, and Kimi's, for an id between special tokens that has none
MOST_SPECIAL = 65_536  # ids behind a vocabulary; published tokenizers have some hundreds


def stated_tokens(stated: object, place: str) -> dict[int, Mapping]:
    """id -> what `added_tokens_decoder` says of the special token. place: the file and the key, for what is wrong with it."""
    try:
        named = {int(i): token if isinstance(token, Mapping) else {"content": token} for i, token in (stated or {}).items()}
        if all(isinstance(token["content"], str) for token in named.values()):
            return named
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    raise RunError(f'{place}: must be ids with tokens, as {{"151643": {{"content": "<|endoftext|>"}}}}. Restore the file.')


def tokens_behind(first: int, last: int, named: Mapping[int, Mapping], special: Iterable[str],
                  known: Iterable[str] = ()) -> list[AddedToken]:
    """The tokens that follow a vocabulary, in order of their ids: `first` to `last` as they are named, or as RESERVED, then
    `special` ones without an id. known: those that the vocabulary has."""
    tokens = [stated_token(named[i]) if i in named else special_token(RESERVED.format(i)) for i in range(first, last + 1)]
    known = {*known, *(token.content for token in tokens)}
    return tokens + [special_token(text) for text in dict.fromkeys(special) if text not in known]


def special_names(config: Mapping[str, object]) -> list[str]:
    """All that tokenizer_config.json, or special_tokens_map.json, gives a role."""
    return [*names(config.get("extra_special_tokens")), *names(config.get("additional_special_tokens")),
            *(text for key, value in config.items() if key.endswith("_token") for text in names([value]))]


def special_token(text: str) -> AddedToken:
    return AddedToken(text, special=True, normalized=False)


def stated_token(stated: Mapping) -> AddedToken:
    """Of an entry of `added_tokens_decoder`."""
    flags = {name: bool(stated.get(name)) for name in ("single_word", "lstrip", "rstrip")}
    return AddedToken(stated["content"], special=bool(stated.get("special", True)), normalized=False, **flags)


def names(values: object) -> list[str]:
    """The texts among them; of an object its `content`."""
    texts = [value.get("content") if isinstance(value, Mapping) else value
             for value in (values if isinstance(values, Sequence) and not isinstance(values, str) else ())]
    return [text for text in texts if isinstance(text, str)]
