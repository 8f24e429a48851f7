"""Tokenizers that are published as a sentencepiece model (tokenizer.model) alone, as Llama 2's first were: what the file means
for the `tokenizers` library. Does not import torch.

Ids of text are sentencepiece's own, but where pieces of equal scores overlap, and where characters are replaced that are
spelled in several (combining marks): the library looks at those otherwise. Types of pieces become: control and unknown ones
special tokens; marks that a user defined ("<sep>") added tokens, read where a template writes them; white space and single
characters that a user defined stay text, of which they are cut before everything else.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Library

from spoutnik.errors import RunError
from spoutnik.text.added_tokens import MOST_SPECIAL, names, special_names, stated_token, stated_tokens, tokens_behind
from spoutnik.text.prefix_space import LEADING_SPACES, LLAMA_CLASSES, SPACE
from spoutnik.text.sentencepiece_file import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Piece,
    SentencePieceModel,
    read_sentencepiece,
)

_BEGIN_WITH_BOS = (*LLAMA_CLASSES, "GemmaTokenizer", "None")  # classes that put it there where no key says otherwise
_END_WITH_EOS = ("T5Tokenizer",)
_USER_SCORE = -0.1  # what sentencepiece's unigram model takes for a user's symbol, whatever its file says
_ALL = 1 << 16  # spaces before a text
_HOW_TO_READ = ("legacy", "add_prefix_space", "sp_model_kwargs", "auto_map")  # keys whose answers tokenizer.json holds


def find_sentencepiece(folder: Path) -> Path | None:
    path = folder / "tokenizer.model"
    return path if path.exists() else None


def read_sentencepiece_tokenizer(path: Path, config: dict, stated: Mapping[str, object],
                                 added: Mapping[str, object]) -> Library:
    """The tokenizer that this model means.

    Args:
        config: the contents of tokenizer_config.json; becomes that of the tokenizer.json which the result is saved as, with the
            names of special tokens that the model alone tells.
        stated: the contents of special_tokens_map.json. added: those of added_tokens.json (token -> id).
    Raises:
        RunError: a file is damaged, or contradicts another. UserError: the model asks for what is not computed here.
    """
    model = read_sentencepiece(path)
    for name in ("bos", "eos", "unk", "pad"):
        if (text := stated.get(f"{name}_token", model.special_text(name))) is not None:
            config.setdefault(f"{name}_token", text)
    tokens = _tokens(model, config, added)
    model.pieces = [piece._replace(text=tokens[i]["content"]) if i in tokens else piece for i, piece in enumerate(model.pieces)]
    prefix = _prefix(model, config)
    library = Library(_bpe(model) if model.kind == BPE else _unigram(model))
    library.normalizer = _normalizer(model, prefix)
    library.pre_tokenizer = _pre_tokenizer(model, prefix)
    library.decoder = _decoder(model, prefix)
    library.add_tokens(_added_tokens(model, tokens, [*special_names(config), *special_names(stated)]))
    _begin_and_end(library, config)
    for key in _HOW_TO_READ:
        config.pop(key, None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    return library


def merges_by_score(ids: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Any two neighbors that together are a piece may be joined, those of the best one first: each way to cut a piece into two
    is a merge. ids: of the pieces that may be joined. scores: by id."""
    cuts = [(-scores[i], ids[text[:cut]], ids[text[cut:]], text[:cut], text[cut:])
            for text, i in ids.items() for cut in range(1, len(text)) if text[:cut] in ids and text[cut:] in ids]
    return [(left, right) for *_, left, right in sorted(cuts)]


def _class(config: Mapping[str, object]) -> str:
    return str(config.get("tokenizer_class")).removesuffix("Fast")


def _prefix(model: SentencePieceModel, config: Mapping[str, object]) -> str:
    """Where a space is put: "always" before a text and after special tokens, as sentencepiece does, which sees what is between
    them as texts; "first", before a text alone, or "never", where the configuration says so (as in `as_its_class_says`)."""
    stated = config.get("add_prefix_space")
    if not (model.adds_prefix if stated is None else stated):
        return "never"
    is_first = _class(config) in LLAMA_CLASSES and not (config.get("legacy") and _class(config) == "LlamaTokenizer")
    return "first" if is_first else "always"


def _tokens(model: SentencePieceModel, config: Mapping[str, object], added: Mapping[str, object]) -> dict[int, Mapping]:
    """id -> what the files beside the model say of the token. They may give a new text to a piece that stands for no text."""
    place, other = (model.path.parent / name for name in ("tokenizer_config.json", "added_tokens.json"))
    tokens = stated_tokens({i: text for text, i in added.items()}, f"{other}: the file")
    tokens |= stated_tokens(config.get("added_tokens_decoder"), f"{place}: added_tokens_decoder")
    for i, token in tokens.items():
        piece = model.pieces[i] if 0 <= i < len(model.pieces) else None
        if piece is None and not 0 <= i < len(model.pieces) + MOST_SPECIAL or (
                piece is not None and piece.type in (NORMAL, BYTE) and piece.text != token["content"]):
            what = "is no piece" if piece is None else f"is the piece {piece.text!r}"
            raise RunError(f"{place}, {other.name}: the token {token['content']!r} has the id {i}, which {what} in "
                           f"{model.path.name}. The files belong to different models: restore them.")
    return tokens


def _added_tokens(model: SentencePieceModel, tokens: Mapping[int, Mapping], special: Sequence[str]) -> list[AddedToken]:
    """In order of their ids: those among the pieces, then those behind."""
    among = [stated_token(tokens[i]) if i in tokens else AddedToken(
        piece.text, special=piece.type in (CONTROL, UNKNOWN) or piece.text in special, normalized=False)
        for i, piece in enumerate(model.pieces)
        if i in tokens or piece.type in (CONTROL, UNKNOWN) or piece.text in special or _is_mark(piece)]
    first = len(model.pieces)
    return among + tokens_behind(first, max(tokens, default=0), tokens, special, {piece.text for piece in model.pieces})


def _is_mark(piece: Piece) -> bool:
    return piece.type == USER_DEFINED and not _is_text(piece)


def _is_text(piece: Piece) -> bool:
    """A user's symbol that is of one character, or white space."""
    return piece.type == USER_DEFINED and (len(piece.text) == 1 or piece.text.replace(SPACE, " ").isspace())


def _bpe(model: SentencePieceModel) -> models.BPE:
    """A user's symbol that is text is cut out before, and then taken as it is."""
    normal = {piece.text: i for i, piece in enumerate(model.pieces) if piece.type == NORMAL}
    unknown = next(piece.text for piece in model.pieces if piece.type == UNKNOWN)
    return models.BPE(vocab={piece.text: i for i, piece in enumerate(model.pieces)}, unk_token=unknown, fuse_unk=True,
                      merges=merges_by_score(normal, [piece.score for piece in model.pieces]),
                      byte_fallback=_has_bytes(model), ignore_merges=any(map(_is_text, model.pieces)))


def _unigram(model: SentencePieceModel) -> models.Unigram:
    scored = [(piece.text, _USER_SCORE if piece.type == USER_DEFINED else piece.score) for piece in model.pieces]
    unknown = next(i for i, piece in enumerate(model.pieces) if piece.type == UNKNOWN)
    return models.Unigram(scored, unknown, _has_bytes(model))


def _has_bytes(model: SentencePieceModel) -> bool:
    return any(piece.type == BYTE for piece in model.pieces)


def _normalizer(model: SentencePieceModel, prefix: str) -> normalizers.Normalizer:
    parts = []
    if model.charsmap:
        try:
            parts.append(normalizers.Precompiled(model.charsmap))
        except Exception as error:  # the library raises bare Exception
            raise RunError(f"{model.path}: its precompiled_charsmap is damaged ({error}). Fetch it again.") from error
    if model.removes_spaces:
        parts += [normalizers.Replace(Regex(LEADING_SPACES), ""), normalizers.Replace(Regex(rf"[ {SPACE}]+\z"), ""),
                  normalizers.Replace(Regex(" {2,}"), " ")]
    if prefix == "always":
        parts.append(normalizers.Prepend(SPACE))
    if prefix != "first":
        parts.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(parts)


def _pre_tokenizer(model: SentencePieceModel, prefix: str) -> pre_tokenizers.PreTokenizer | None:
    """Mostly nothing is cut: pieces may go over spaces."""
    parts: list[pre_tokenizers.PreTokenizer] = []
    if prefix == "first":
        parts.append(pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False))
    symbols = sorted((piece.text for piece in model.pieces if _is_text(piece)), key=len, reverse=True)
    if symbols and model.kind == BPE:
        parts.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, symbols))), "isolated"))
    if _has_bytes(model) and (symbols or model.kind != BPE):  # text that spells "<0x41>" is not the byte
        parts.append(pre_tokenizers.Split(Regex("<(?=0x[0-9A-F]{2}>)"), "merged_with_previous"))
    return pre_tokenizers.Sequence(parts) if parts else None


def _decoder(model: SentencePieceModel, prefix: str) -> decoders.Decoder:
    removed = _ALL if model.removes_spaces else int(prefix != "never")
    strip = [decoders.Strip(" ", removed, 0)] if removed else []
    return decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])


def _begin_and_end(library: Library, config: dict) -> None:
    """What is put around every text."""
    around = {"bos": _class(config) in _BEGIN_WITH_BOS, "eos": _class(config) in _END_WITH_EOS}
    for name, default in around.items():
        stated = config.get(f"add_{name}_token")
        (text,) = names([config.get(f"{name}_token")]) or (None,)
        has = text is not None and library.token_to_id(text) is not None
        around[name] = config[f"add_{name}_token"] = has and bool(default if stated is None else stated)
    bos, eos = ([names([config[f"{name}_token"]])[0]] if used else [] for name, used in around.items())
    if bos or eos:
        library.post_processor = processors.TemplateProcessing(
            single=[*bos, "$A", *eos], pair=[*bos, "$A", *eos, *bos, "$B:1", *eos],
            special_tokens=[(text, library.token_to_id(text)) for text in (*bos, *eos)])
