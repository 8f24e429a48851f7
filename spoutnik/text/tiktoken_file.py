"""Tokenizers that are published as a file of ranks (tiktoken's format: a token's bytes in base64, its rank) with Python code
beside it. The code is never run: how it splits text is known for published kinds, or read where it states it as plain texts."""

import ast
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as BPE

from spoutnik.errors import RunError
from spoutnik.files import LFS_POINTER, is_lfs_pointer
from spoutnik.text.added_tokens import MOST_SPECIAL, names, special_names, stated_tokens, tokens_behind


@dataclass(frozen=True)
class Kind:
    """What a published tokenizer's code says. pattern: splits text before the merges. num_reserved: special tokens after the
    ranks, named or not; special: their names, where tokenizer_config.json gives none. composes: text is brought to NFC."""

    pattern: str
    num_reserved: int = 0
    special: tuple[str, ...] = ()
    composes: bool = False


_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
KIMI = Kind(rf"[\p{{Han}}]+|{_BEFORE}{_UPPER}*{_LOWER}+{_WORDS}?|{_BEFORE}{_UPPER}+{_LOWER}*{_WORDS}?"
            rf"|\p{{N}}{{1,3}}|{_REST}", num_reserved=256)
LLAMA = Kind(rf"{_WORDS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}|{_REST}", num_reserved=256)
QWEN = Kind(rf"{_WORDS}|{_BEFORE}\p{{L}}+|\p{{N}}|{_REST}", composes=True, special=(
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))))
BY_CLASS = {"TikTokenTokenizer": KIMI, "QWenTokenizer": QWEN}
BY_MODEL_TYPE = {"kimi_k2": KIMI, "deepseek_v3": KIMI, "llama": LLAMA, "qwen2": QWEN, "qwen3": QWEN}


def find_ranks(folder: Path) -> Path | None:
    """The file of ranks in a folder: tiktoken.model, *.tiktoken, or a tokenizer.model of this kind (as Llama 3's first)."""
    for path in (folder / "tiktoken.model", *sorted(folder.glob("*.tiktoken"))):
        if path.exists():
            return path
    path = folder / "tokenizer.model"
    if path.exists():
        with open(path, "rb") as file:
            if _rank_of(file.readline(1000)) is not None:
                return path
    return None


def read_tiktoken(path: Path, config: Mapping[str, object], model_type: object) -> BPE:
    """The tokenizer that these ranks mean. config: the contents of tokenizer_config.json.

    Raises:
        RunError: the file is damaged, special tokens contradict it, or it is not known how text is split.
    """
    kind = _kind(path, config, model_type)
    ranks = _read_ranks(path)
    letters = _byte_letters()
    spelled = {token: "".join(map(letters.__getitem__, token)) for token in ranks}
    bpe = BPE(models.BPE(vocab={spelled[token]: rank for token, rank in ranks.items()}, ignore_merges=True,
                         merges=[(spelled[left], spelled[right]) for left, right in merges_of(ranks)]))
    if kind.composes:
        bpe.normalizer = normalizers.NFC()
    try:
        split = pre_tokenizers.Split(Regex(kind.pattern), "isolated")
    except Exception as error:  # the library raises bare Exception
        raise RunError(f"{path}: the pattern in the code beside it is no regular expression ({error}). Restore it.") from error
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.add_tokens(_special_tokens(path, config, kind, ranks))
    return bpe


def merges_of(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pairs that BPE may join, in order. tiktoken joins any two neighbors whose bytes together are a token, that of the
    lowest rank first: each way to cut a token into two is a merge."""
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        merges += sorted((cut for cut in cuts if cut[0] in ranks and cut[1] in ranks), key=lambda c: (ranks[c[0]], ranks[c[1]]))
    return merges


def _rank_of(line: bytes) -> tuple[bytes, int] | None:
    """A line of the file: (token, rank)."""
    parts = line.split()
    if len(parts) != 2 or not parts[1].isdigit():
        return None
    try:
        return base64.b64decode(parts[0], validate=True), int(parts[1])
    except binascii.Error:
        return None


def _read_ranks(path: Path) -> dict[bytes, int]:
    if is_lfs_pointer(path):
        raise RunError(LFS_POINTER.format(path=path))
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            entry = _rank_of(line)
            if entry is None or entry[0] in ranks:
                raise RunError(f"{path}: line {number} is no token in base64 with its rank, or one that was there before. "
                               "Restore the file.")
            ranks[entry[0]] = entry[1]
    if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([byte]) not in ranks for byte in range(256)):
        raise RunError(f"{path}: its ranks must be 0 to their number - 1, and all 256 bytes be among the tokens. Restore it.")
    return ranks


def _special_tokens(path: Path, config: Mapping[str, object], kind: Kind, ranks: Mapping[bytes, int]) -> list[AddedToken]:
    """In order of their ids, which follow the ranks: those of `added_tokens_decoder`, with names for ids between them, then
    others that the configuration names."""
    first, place = len(ranks), f"{path.parent / 'tokenizer_config.json'}: added_tokens_decoder"
    named = stated_tokens(config.get("added_tokens_decoder"), place)
    if not named:
        named = {first + index: {"content": name} for index, name in enumerate(kind.special)}
    if not all(first <= i < first + MOST_SPECIAL for i in named):
        wrong = next(i for i in named if not first <= i < first + MOST_SPECIAL)
        raise RunError(f"{place}: {wrong} is no id of a special token, which follow the {first} tokens of {path.name}. The "
                       "files belong to different models: restore them.")
    last = max(max(named, default=first - 1), first + kind.num_reserved - 1)
    return tokens_behind(first, last, named, special_names(config))


def _kind(path: Path, config: Mapping[str, object], model_type: object) -> Kind:
    known = BY_CLASS.get(str(config.get("tokenizer_class")).removesuffix("Fast")) or BY_MODEL_TYPE.get(str(model_type))
    stated = _stated_in_code(path.parent, config)
    if stated is not None and (known is None or stated["pattern"] != known.pattern):
        return Kind(stated["pattern"], stated["num_reserved"], composes=known is not None and known.composes)
    if known is None:
        raise RunError(f"{path}: it is not known how this model (tokenizer_class = {config.get('tokenizer_class')!r}, "
                       f"model_type = {model_type!r}) splits text before it is looked up here; code is never run. Put a "
                       "tokenizer.json into the folder.")
    return known


def _stated_in_code(folder: Path, config: Mapping[str, object]) -> dict | None:
    """The pattern and the number of reserved tokens that the tokenizer's Python file states: `pat_str`, a text or several
    joined by "|", and `num_reserved_special_tokens`. The file is parsed, not run."""
    auto_map = config.get("auto_map")
    named = auto_map.get("AutoTokenizer") if isinstance(auto_map, Mapping) else auto_map
    name = next((name for name in names(named) if "." in name), None)
    path = folder / f"{name.split('--')[-1].partition('.')[0]}.py" if name else None
    if path is None or path.parent != folder or not path.exists():
        return None
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError, RecursionError):
        return None
    values: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values.setdefault(node.targets[0].id.lower(), _constant(node.value))
    pattern, reserved = values.get("pat_str"), values.get("num_reserved_special_tokens")
    if not isinstance(pattern, str):
        return None
    return {"pattern": pattern, "num_reserved": reserved if isinstance(reserved, int) else 0}


def _constant(node: ast.expr) -> object:
    """A literal, or `"|".join([...])` of literals; None for anything else."""
    try:
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join" and node.args):
            return ast.literal_eval(node.func.value).join(ast.literal_eval(node.args[0]))
        return ast.literal_eval(node)
    except (ValueError, TypeError, AttributeError):
        return None


@cache
def _byte_letters() -> dict[int, str]:
    """GPT-2's letters for bytes: Latin-1's printable ones stand for themselves, those from 256 on for the others, in order."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    printable = {ord(letter): letter for letter in letters if ord(letter) < 256}
    return printable | dict(zip(sorted(set(range(256)).difference(printable)), letters[len(printable):]))
