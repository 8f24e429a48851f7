"""Duplicates within training texts, and benchmark problems among them, in any language.

Near duplicates are texts whose shingles (three words or signs in a row) have a Jaccard similarity of at least 0.8: MinHash
and locality-sensitive hashing (datasketch) propose pairs, and the true similarity decides. A text is contaminated when it
shares ten words in a row with a problem of a benchmark (13 in GPT-3's report; 10 finds more), or holds a shorter one whole.
Where no spaces are written, two letters stand for a word.
"""

import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import regex
from datasketch import MinHash, MinHashLSH

JACCARD = 0.8
NGRAM = 10  # words
_SHINGLE = 3  # words or signs
_BANDS, _ROWS = 25, 5  # of a MinHash: misses one pair in 20,000 with a similarity of 0.8; most below 0.4 are no candidates
_LETTERS_OF_A_WORD = 2
_FEWEST_WORDS_WITHIN = 5  # of a problem that counts where it is part of a text; a shorter one has to be all of it
_SHOWN = 3

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{_UNSPACED}]|[\p{{L}}\p{{M}}\p{{N}}_--[{_UNSPACED}]]++", regex.V1)
_TOKEN = regex.compile(rf"{_WORD.pattern}|\S", regex.V1)  # x + 1 is not x - 1
_UNSPACED_LETTER = regex.compile(rf"[{_UNSPACED}]")


@dataclass(frozen=True)
class DuplicateReport:
    """Which texts repeat earlier ones, but for case and spaces (exact) or nearly: index -> index of the earlier one."""

    read: int
    exact: dict[int, int]
    near: dict[int, int]

    def sentence(self) -> str:
        return f"{self.read:,} texts: {len(self.exact):,} exact and {len(self.near):,} near duplicates of earlier ones"


@dataclass(frozen=True)
class Overlap:
    """A text that holds a part of a benchmark's problem, or all of it. words: what they share."""

    text: int
    benchmark: str
    problem: int
    words: str


@dataclass(frozen=True)
class ContaminationReport:
    """Which texts hold benchmark problems; of each text the first overlap with each benchmark."""

    read: int
    overlaps: list[Overlap]

    @property
    def texts(self) -> set[int]:
        return {overlap.text for overlap in self.overlaps}

    @property
    def by_benchmark(self) -> dict[str, int]:
        """Benchmark -> how many texts."""
        counts: dict[str, int] = {}
        for overlap in self.overlaps:
            counts[overlap.benchmark] = counts.get(overlap.benchmark, 0) + 1
        return counts

    def sentence(self) -> str:
        """For people, with the first examples."""
        if not self.overlaps:
            return f"{self.read:,} texts: none shares {NGRAM} words in a row with a benchmark"
        counts = ", ".join(f"{count:,} with {name}" for name, count in self.by_benchmark.items())
        shown = "; ".join(f"text {each.text + 1} and problem {each.problem + 1} of {each.benchmark}: \"{each.words}\""
                          for each in self.overlaps[:_SHOWN])
        return f"{self.read:,} texts: {len(self.texts):,} share problems with benchmarks ({counts}), as {shown}"


@dataclass(frozen=True)
class HygieneReport:
    """Counts for a manifest: read = kept + all that was dropped, each for the first reason that holds."""

    read: int
    kept: int
    exact_duplicates: int = 0
    near_duplicates: int = 0
    contaminated: int = 0
    by_benchmark: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict:
        return asdict(self)

    def sentence(self) -> str:
        named = ((self.exact_duplicates, "exact duplicates"), (self.near_duplicates, "near duplicates"),
                 (self.contaminated, "contaminated"))
        reasons = [f"{count:,} {what}" for count, what in named if count]
        benchmarks = ", ".join(f"{name} {count:,}" for name, count in self.by_benchmark.items())
        return (f"{self.read:,} texts read, {self.kept:,} kept" + "".join(f", {reason}" for reason in reasons)
                + (f" ({benchmarks})" if benchmarks else ""))


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared: without case, marks and spaces; letters where no spaces are written."""
    return _WORD.findall(_folded(text))


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def duplicates(texts: Sequence[str], jaccard: float = JACCARD, near: bool = True) -> DuplicateReport:
    """Texts that repeat an earlier one. A text without a letter or sign repeats nothing. near: look for near duplicates too."""
    exact: dict[int, int] = {}
    close: dict[int, int] = {}
    first: dict[str, int] = {}
    shingles: dict[int, frozenset[int]] = {}
    index = MinHashLSH(params=(_BANDS, _ROWS), num_perm=_BANDS * _ROWS)
    for number, text in enumerate(texts):
        tokens = _TOKEN.findall(_folded(text))
        if not tokens:
            continue
        if (earlier := first.setdefault(" ".join(tokens), number)) != number:
            exact[number] = earlier
        elif near:
            own = _shingles(tokens)
            sketch = _sketch(own)
            candidates = sorted(other for other in index.query(sketch) if _jaccard(own, shingles[other]) >= jaccard)
            if candidates:
                close[number] = candidates[0]
            else:
                index.insert(number, sketch, check_duplication=False)
                shingles[number] = own
    return DuplicateReport(len(texts), exact, close)


def contamination(texts: Sequence[str], benchmarks: Mapping[str, Sequence[str]], size: int = NGRAM) -> ContaminationReport:
    """Texts that share `size` words in a row with a benchmark's problem, or hold a problem of fewer words whole.

    benchmarks: name -> problems.
    """
    ngrams: dict[str, dict[str, int]] = {}  # words in a row -> benchmark -> its first problem that has them
    whole: dict[str, dict[str, int]] = {}
    within: set[int] = set()  # lengths in words of short problems that may be a part of a text
    for name, problems in benchmarks.items():
        for number, problem in enumerate(problems):
            words = words_of(problem)
            length = size * _letters(words)
            if not words:
                continue
            if len(words) < length:
                whole.setdefault(" ".join(words), {}).setdefault(name, number)
                if len(words) >= _FEWEST_WORDS_WITHIN * _letters(words):
                    within.add(len(words))
            for row in _rows(words, length):
                ngrams.setdefault(row, {}).setdefault(name, number)
    overlaps = []
    for number, text in enumerate(texts):
        words = words_of(text)
        shared: dict[str, Overlap] = {}
        candidates = [(" ".join(words), whole), *((row, whole) for length in within for row in _rows(words, length)),
                      *((row, ngrams) for row in _rows(words, size * _letters(words)))]
        for row, table in candidates:
            for name, problem in table.get(row, {}).items():
                shared.setdefault(name, Overlap(number, name, problem, row))
        overlaps += shared.values()
    return ContaminationReport(len(texts), overlaps)


def clean(texts: Sequence[str], benchmarks: Mapping[str, Sequence[str]], near: bool = True) -> tuple[list[int], HygieneReport]:
    """The indices of texts that are neither duplicates of earlier ones nor contaminated, and the counts."""
    repeated, shared = duplicates(texts, near=near), contamination(texts, benchmarks)
    dropped = repeated.exact.keys() | repeated.near.keys()
    contaminated = shared.texts - dropped
    kept = [number for number in range(len(texts)) if number not in dropped and number not in contaminated]
    return kept, HygieneReport(len(texts), len(kept), len(repeated.exact), len(repeated.near), len(contaminated),
                               shared.by_benchmark)


def _letters(words: Sequence[str]) -> int:
    """How many tokens stand for a word: more than one in a text that is mostly written without spaces."""
    if all(map(str.isascii, words)):
        return 1
    unspaced = sum(bool(_UNSPACED_LETTER.match(word)) for word in words)
    return _LETTERS_OF_A_WORD if 2 * unspaced > len(words) else 1


def _rows(words: Sequence[str], length: int) -> Iterator[str]:
    """All runs of so many words."""
    return (" ".join(words[i:i + length]) for i in range(len(words) - length + 1))


def _shingles(words: Sequence[str]) -> frozenset[int]:
    return frozenset(zlib.crc32(row.encode(errors="surrogatepass")) for row in _rows(words, min(_SHINGLE, len(words))))


def _sketch(shingles: frozenset[int]) -> MinHash:
    sketch = MinHash(num_perm=_BANDS * _ROWS, hashfunc=int)
    sketch.update_batch(shingles)
    return sketch


def _jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)
