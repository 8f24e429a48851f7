"""Language identification and consistency on MGSM, beside py3langid alone.

    python benchmarks/language.py DATA

DATA is the folder of MGSM's files, mgsm_en.tsv and so on (question, tab, answer). Measured: sentences and their first five
words, among MGSM's eleven languages and among thirty; 420 thoughts of two languages with formulas, code and digits in between,
whose true share is known by words (letters where no spaces are written); pure thoughts with the same in between; CPU time a
thought. The last line is everything as JSON.
"""

import argparse
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from spoutnik.tasks.identification import identify
from spoutnik.tasks.language import language_consistency

MGSM = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
THIRTY = (*MGSM, "it", "pt", "nl", "pl", "sv", "da", "fi", "cs", "ro", "hu", "tr", "vi", "id", "uk", "bg", "sr", "ar", "hi",
          "ko")
SIX = ("en", "fr", "de", "es", "zh", "ru")
MIXED_PER_PAIR = 28  # of fifteen pairs
PURE_PER_LANGUAGE = 40
UNSPACED = ("ja", "th", "zh")
ADDITIONS = (
    "$x^2 + 3x = {n}$", "$$\\sum_{{i=1}}^{{{n}}} i = \\frac{{n(n+1)}}{{2}}$$", "\\boxed{{{n}}}", "\\(a_{n} + b = c\\)",
    "{n} + 17 = {m}.", "{n} * {m} = 5000", "\\[ \\text{{total}} = {n} \\times {m} \\]", "`total = price * {n}`", "x = {n}.",
    "```python\ndef cost(count, price):\n    total = count * price\n    return total\nprint(cost({n}, {m}))\n```",
    "for i in range({n}):\n    total += i\n", "2x + {n}y = {m}", "https://example.org/problems/{n}?page=two",
    "\\begin{{align}} y &= {n}x + b \\\\ y &= {m} \\end{{align}}", "{n}, {m}, {n}{m}",
)


def questions(data: Path, language: str) -> list[str]:
    lines = (data / f"mgsm_{language}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[0] for line in lines]


def sentences(data: Path, language: str) -> list[str]:
    parts = [part.strip() for question in questions(data, language)
             for part in re.split(r"(?<=[.?!।。？！])\s+|(?<=[。？！])", question)]
    return [part for part in parts if part]


def first_five(texts: Sequence[str]) -> list[str]:
    return [" ".join(text.split()[:5]) for text in texts if len(text.split()) >= 5]


def accuracy(texts: Sequence[str], language: str, classify: Callable[[str], str]) -> float:
    return sum(classify(text) == language for text in texts) / len(texts) if texts else float("nan")


def amount(text: str, language: str) -> int:
    """Words with a letter in them, or letters."""
    if language in UNSPACED:
        return sum(letter.isalpha() and not letter.isascii() for letter in text)
    return sum(any(letter.isalpha() for letter in word) for word in text.split())


def thought(rng: random.Random, parts: list[str]) -> str:
    """The parts in random order, with something that is no prose after every second one."""
    rng.shuffle(parts)
    text = ""
    for part in parts:
        text += part + rng.choice((" ", "\n"))
        if rng.random() < 0.5:
            addition = rng.choice(ADDITIONS).format(n=rng.randint(2, 99), m=rng.randint(100, 999))
            text += ("\n" + addition + "\n") if "\n" in addition else addition + rng.choice((" ", "\n"))
    return text


def mixed_thoughts(rng: random.Random, texts: dict[str, list[str]]) -> list[tuple[str, str, str, float]]:
    """(text, language, the other one, the true share of the language)."""
    thoughts = []
    for pair in combinations(SIX, 2):
        for index in range(MIXED_PER_PAIR):
            language, other = pair if index % 2 else pair[::-1]
            parts = {each: rng.sample(texts[each], rng.randint(2, 6)) for each in pair}
            amounts = {each: sum(amount(part, each) for part in parts[each]) for each in pair}
            thoughts.append((thought(rng, [*parts[language], *parts[other]]), language, other,
                             amounts[language] / sum(amounts.values())))
    return thoughts


class Peer:
    """py3langid, restricted to some languages, on texts as they are."""

    def __init__(self, languages: Sequence[str]):
        self.model = LanguageIdentifier.from_model_file(MODEL_FILE)
        self.model.set_languages(languages)

    def classify(self, text: str) -> str:
        return self.model.classify(text)[0]

    def consistency(self, text: str, language: str) -> float:
        """Sentence by sentence, by words, nothing stripped."""
        parts = [part for part in re.split(r"(?<=[.?!])\s+|(?<=[。？！])|\n+", text) if part.strip()]
        right = [(self.classify(part) == language, amount(part, language)) for part in parts]
        total = sum(count for _, count in right)
        return sum(count for is_right, count in right if is_right) / total if total else 1.0


def errors(thoughts: Sequence[tuple[str, str, str, float]], consistency: Callable[[str, str], float]) -> dict:
    started = time.process_time()
    wrong = [abs(consistency(text, language) - share) for text, language, _, share in thoughts]
    milliseconds = 1000 * (time.process_time() - started) / len(thoughts)
    pairs: dict[str, list[float]] = {}
    for (_, language, other, _), error in zip(thoughts, wrong):
        pairs.setdefault("-".join(sorted((language, other))), []).append(error)
    means = {pair: statistics.mean(each) for pair, each in pairs.items()}
    worst = max(means, key=means.get)
    return {"mean": statistics.mean(wrong), "worst_pair": worst, "worst_pair_mean": means[worst], "largest": max(wrong),
            "milliseconds": milliseconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of MGSM's files")
    data = parser.parse_args().data
    texts = {language: sentences(data, language) for language in MGSM}
    result: dict = {"identification": {}}
    for name, languages in (("eleven", MGSM), ("thirty", THIRTY)):
        peer = Peer(languages)
        ours = partial(identify, languages=languages)
        for who, classify in (("ours", ours), ("py3langid", peer.classify)):
            rows = {language: {"sentences": accuracy(each, language, classify),
                               "five_words": accuracy(first_five(each), language, classify)}
                    for language, each in texts.items()}
            result["identification"][f"{who}, {name}"] = rows
            print(f"\n{who}, among {len(languages)} languages (% of sentences, of their first five words)")
            print("  ".join(f"{language} {100 * row['sentences']:.1f} {100 * row['five_words']:.1f}"
                            for language, row in rows.items()))
    rng = random.Random(16)
    mixed = mixed_thoughts(rng, texts)
    pure = {language: [(thought(rng, rng.sample(texts[language], rng.randint(4, 10))), language, language, 1.0)
                       for _ in range(PURE_PER_LANGUAGE)] for language in MGSM}
    for who, consistency in (("ours", language_consistency), ("py3langid", Peer(MGSM).consistency)):
        consistency("Warm up, so that the model is there: das ist gut.", "en")
        row = {"mixed": errors(mixed, consistency),
               "pure": {language: statistics.mean(consistency(text, language) for text, *_ in each)
                        for language, each in pure.items()}}
        result[f"thoughts, {who}"] = row
        print(f"\n{who}: {len(mixed)} mixed thoughts: mean error {row['mixed']['mean']:.4f}, worst pair "
              f"{row['mixed']['worst_pair']} {row['mixed']['worst_pair_mean']:.4f}, {row['mixed']['milliseconds']:.2f} ms each")
        print("pure: " + "  ".join(f"{language} {share:.4f}" for language, share in row["pure"].items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
