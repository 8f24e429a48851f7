"""How right the maths verifier is, on the 5,500 problems of MATH with their worked solutions:

    python benchmarks/grading_quality.py FOLDER            # with math/math500_test.jsonl and math/math_test_5000.jsonl
    python benchmarks/grading_quality.py FOLDER --show     # and what was judged wrongly

Four questions. Does a gold agree with the answer of its own worked solution? With itself, dressed as models dress answers? With
itself, made wrong on purpose? With the gold of another problem? Peer: math-verify on every PEER_STEP-th question.
"""

import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from common import machine, print_result
from math_verify import parse, verify

from spoutnik.files import read_jsonl
from spoutnik.tasks.maths import equal, extract, statistics

PAIRS, SEED, PEER_STEP = 20_000, 7, 25
FILES = ("math500_test.jsonl", "math_test_5000.jsonl")
NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+|\\frac\{-?\d+\}\{\d+\})")
MATHS = re.compile(r"(?!.*\\(?:text|mbox)).*\d", re.DOTALL)
FULL_WIDTH = {ord("0") + digit: chr(0xff10 + digit) for digit in range(10)}
FRACTION = re.compile(r"\\frac\{(-?\d+)\}\{(\d+)\}")
SIGNS, OPENED = re.compile(r"(?<=\w)([-+=])(?=\w)"), r" \1 "
SEPARATORS = {"comma": ",", "thin space": r"\,", "space": " ", "braced comma": "{,}", "apart": r",\!"}


def golds_and_solutions(folder: Path) -> list[tuple[str, str]]:
    rows = [row for name in FILES for row in read_jsonl(folder / "math" / name, ("solution",))]
    return [(row.get("answer") or boxed(row["solution"]), row["solution"]) for row in rows]


def boxed(solution: str) -> str:
    """The content of the last box, by a reading of its own: what is measured must not choose the golds."""
    start = max(solution.rfind(r"\boxed"), solution.rfind(r"\fbox"))
    depth, opened = 0, solution.index("{", start)
    for at in range(opened, len(solution)):
        depth += (solution[at] == "{") - (solution[at] == "}")
        if not depth:
            return solution[opened + 1:at]
    raise ValueError(solution)


def thousands(separator: str) -> Callable[[str], str | None]:
    def dressed(gold: str) -> str | None:
        if not re.fullmatch(r"-?\d{4,}", gold):
            return None
        return f"\\boxed{{{int(gold):,}}}".replace(",", separator)
    return dressed


def boxed_in(gold: str) -> str:
    return f"\\boxed{{{gold}}}"


def only_numbers(template: str) -> Callable[[str], str | None]:
    return lambda gold: template.replace("gold", gold) if NUMBER.fullmatch(gold) else None


def template(text: str) -> Callable[[str], str]:
    return lambda gold: text.replace("gold", gold)


DRESSINGS: dict[str, Callable[[str], str | None]] = {
    "period in the box": template(r"So it is \boxed{gold.}"), "text in the box": template(r"\boxed{\text{gold}}"),
    "dollars in the box": template(r"\boxed{$gold$}"), "spaces": lambda gold: boxed_in(f" {SIGNS.sub(OPENED, gold)} "),
    "nested boxes": template(r"\boxed{\boxed{gold}}"), "fbox": template(r"Thus $\fbox{gold}$."),
    "dfrac": lambda gold: boxed_in(gold.replace(r"\frac", r"\dfrac")) if r"\frac" in gold else None,
    "displaystyle": template(r"\[\boxed{\displaystyle gold}\]"), "sentence with dollars": template("The answer is $gold$."),
    "sentence without": template("The answer is gold."), "neither dollars nor box": template("gold"),
    "assignment": template("$x = gold$"), "bold": template("**Answer:** gold"), "hashes": template("Some steps.\n#### gold"),
    "French sentence": template("La réponse finale est $gold$."), "display": template("Thus the answer is\n\\[ gold \\]"),
    "unit in text": only_numbers(r"\boxed{gold\text{ cm}}"), "plain unit": only_numbers("The answer is gold cm."),
    "dollars as currency": only_numbers(r"\boxed{\$gold}"), "euros": only_numbers("The answer is gold €."),
    "words after": only_numbers(r"\boxed{gold \text{ square units}}"),
    "full-width digits": lambda gold: gold.translate(FULL_WIDTH) if gold.isdigit() else None,
    "minus sign": lambda gold: gold.replace("-", "\u2212") if NUMBER.fullmatch(gold) and gold[0] == "-" else None,
    "slash": lambda gold: FRACTION.sub(r"\1/\2", gold) if NUMBER.fullmatch(gold) and "frac" in gold else None,
    "two unfinished boxes": template(r"\boxed{gold} and \boxed{"),
    **{f"thousands: {name}": thousands(separator) for name, separator in SEPARATORS.items()}}


def decimal_comma(gold: str) -> str | None:
    return gold.replace(".", ",") if re.fullmatch(r"(\\\$)?-?\d*\.\d+", gold) else None


def changed_digit(gold: str, chance: random.Random) -> str | None:
    at = [match.start() for match in re.finditer(r"\d", gold)]
    if not at:
        return None
    place = chance.choice(at)
    return gold[:place] + chance.choice([digit for digit in "123456789" if digit != gold[place]]) + gold[place + 1:]


def changed_sign(gold: str, chance: random.Random) -> str | None:
    if not MATHS.match(gold) or re.search(r"\\pm|=|\\cup|\\infty", gold) or re.match(r"\s*0(?![.\d])|[(\[\\{x]", gold):
        return None
    if signs := list(re.finditer(r"(?<![{(,\s^])\s*[-+]", gold)):
        sign = chance.choice(signs)
        return gold[:sign.end() - 1] + ("-" if gold[sign.end() - 1] == "+" else "+") + gold[sign.end():]
    return gold[1:] if gold.startswith("-") else "-" + gold


def swapped(gold: str, chance: random.Random) -> str | None:
    pair = re.fullmatch(r"(\\left)?\(([^,()]+),([^,()]+?)\s*(\\right)?\)", gold)
    return f"({pair[3]},{pair[2]})" if pair and "\\infty" not in gold and pair[2].strip() != pair[3].strip() else None


def changed_bracket(gold: str, chance: random.Random) -> str | None:
    at = [match.start() for match in re.finditer(r"[(\[](?=[^()\[\]]*,[^()\[\]]*[)\]])", gold)]
    if not at:
        return None
    place = chance.choice(at)
    return gold[:place] + ("[" if gold[place] == "(" else "(") + gold[place + 1:]


def changed_base(gold: str, chance: random.Random) -> str | None:
    base = re.fullmatch(r"(.*_\{?)(\d+)(\}?)", gold)
    return f"{base[1]}{int(base[2]) + chance.choice([1, 2])}{base[3]}" if base else None


def dropped_base(gold: str, chance: random.Random) -> str | None:
    base = re.fullmatch(r"(-?[\dA-Z.]+)_\{?\d+\}?", gold)
    return base and base[1]


def changed_exponent(gold: str, chance: random.Random) -> str | None:
    powers = list(re.finditer(r"\^\{?(\d+)(?!\d)", gold))
    if not powers:
        return None
    power = chance.choice(powers)
    return gold[:power.start(1)] + str(int(power[1]) + 1) + gold[power.end(1):]


MISTAKES = {"digit": changed_digit, "sign": changed_sign, "order": swapped, "bracket": changed_bracket, "base": changed_base,
            "no base": dropped_base, "exponent": changed_exponent}


def peer_accepts(gold: str, text: str) -> bool:
    return verify(parse(f"${gold}$", parsing_timeout=None), parse(text, parsing_timeout=None), timeout_seconds=None)


def measure(name: str, questions: list[tuple[str, str]], expected: bool, limit: float, language: str = "en",
            through_extract: bool = True) -> dict:
    """The share of questions (gold, answer as a text) that are judged as expected, in percent."""
    judged = [equal(gold, (extract(text) or "") if through_extract else text, language) is expected for gold, text in questions]
    if "--show" in sys.argv:
        for (gold, text), right in zip(questions, judged):
            if not right:
                print(f"  {name}: {gold!r} {'refuses' if expected else 'accepts'} {text[-80:]!r}")
    sample = questions[::PEER_STEP]
    peer = sum(peer_accepts(gold, text if through_extract else f"${text}$") is expected for gold, text in sample)
    return {"name": f"maths_{name}".replace(" ", "_").replace(":", ""), "ours": 100 * sum(judged) / max(len(judged), 1),
            "peer": 100 * peer / max(len(sample), 1), "unit": "%", "wanted": limit, "questions": len(questions),
            "wrong": judged.count(False)}


def measurements(rows: list[tuple[str, str]]) -> Iterator[dict]:
    yield measure("worked solutions", rows, True, 99.9)
    golds = [gold for gold, _ in rows]
    for name, dress in DRESSINGS.items():
        yield measure(name, [(gold, text) for gold in golds if (text := dress(gold))], True, 99.0)
    yield measure("decimal comma", [(gold, text) for gold in golds if (text := decimal_comma(gold))], True, 99.0, "fr", False)
    chance = random.Random(SEED)
    wrong = {name: [(gold, text) for gold in golds if (text := change(gold, chance)) and text != gold]
             for name, change in MISTAKES.items()}
    for name, questions in wrong.items():
        yield measure(f"wrong {name}", questions, False, 99.95, through_extract=False)
    yield measure("wrong in all", [question for questions in wrong.values() for question in questions], False, 99.95,
                  through_extract=False)
    others = [(one, other) for one, other in (chance.sample(golds, 2) for _ in range(2 * PAIRS))
              if "".join(one.split()) != "".join(other.split())][:PAIRS]
    yield measure("gold of another problem", others, False, 99.9, through_extract=False)


def main() -> None:
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "math" / FILES[0]).exists():
        sys.exit(f"Name the folder that holds math/{FILES[0]} and math/{FILES[1]}: python benchmarks/grading_quality.py FOLDER")
    print(machine())
    results = list(measurements(golds_and_solutions(Path(sys.argv[1]))))
    print(statistics())
    print_result(results)


if __name__ == "__main__":
    main()
