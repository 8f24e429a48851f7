"""Time of 10,000 gradings of maths answers, on the mix that training sees, and on the same mix with one bomb in a hundred:

    python benchmarks/grading.py

Half of the answers are right; each is a sentence with a box, as models write it: `extract`, then `equal`. A bomb is an answer
that would take hours or gigabytes to compute. Peer: math-verify on a share of the same pairs in this process (so its alarm
works), scaled to 10,000; on the bombs it is measured alone, each once. The limit is what the issue allows.
"""

import logging
import random
import time
from collections.abc import Callable

from common import machine, print_result
from math_verify import parse, verify

from spoutnik.tasks.maths import equal, extract, statistics

GRADINGS, SEED, PEER_GRADINGS = 10_000, 3, 1_000
LIMIT_SECONDS, LIMIT_WITH_BOMBS = 15.0, 75.0
Pair = tuple[str, str]  # gold, answer
NESTED = "1"
for _ in range(300):
    NESTED = rf"\frac{{1}}{{1+{NESTED}}}"
BOMBS = ("99^{99^{99}}", "10^6!", r"\sum_{k=1}^{10^9} k", NESTED, "1+" * 5000 + "1", "9" * 100_000, r"\int_0^1 x^{x^{x}} dx",
         "(a+b+c+d)^{100000}", "2^{2^{2^{2^{2}}}}", "1000000!", r"\sum_{n=1}^{\infty} \frac{1}{n^{2}+n!}",
         r"\binom{10^9}{5 \cdot 10^8}")


def formula(chance: random.Random) -> str:
    """A gold: 80 of 100 in MATH are plain numbers, fractions or letters."""
    n, m, k = chance.randint(-500, 5000), chance.randint(1, 99), chance.choice([2, 3, 5, 6, 7])
    plain = [str(n), str(n), str(n), rf"\frac{{{m}}}{{{m + k}}}", f"{n / 8:.3f}", chance.choice("abcxyz")]
    rest = [rf"{m}\sqrt{{{k}}}", rf"\left({m}, -{k}\right)", rf"\frac{{{m}\pi}}{{{k}}}", f"x^2 - {m}x + {k}", rf"[{-m}, {k})",
            f"{m}_{{{k + 9}}}", rf"{m}^\circ", f"{k}, {m}, -{m}", rf"{k} \pm {m}\sqrt{{2}}", rf"{m}\text{{ cm}}^2",
            rf"\text{{({chance.choice('ABCD')})}}",
            rf"(-\infty, {k}) \cup ({m + k}, \infty)", rf"\begin{{pmatrix}} {n} \\ {m} \end{{pmatrix}}"]
    return chance.choice(plain if chance.random() < 0.8 else rest)


def pairs(count: int, seed: int, bombs: float = 0.0) -> list[Pair]:
    chance, rows = random.Random(seed), []
    for _ in range(count):
        gold = formula(chance)
        answer = gold if chance.random() < 0.5 else formula(chance)
        if chance.random() < bombs:
            answer = chance.choice(BOMBS)
        rows.append((gold, chance.choice(["So we get", "Therefore the answer is",
                                          "Adding both sides gives"]) + rf" $\boxed{{{answer}}}$."))
    return rows


def ours(gold: str, text: str) -> bool:
    return equal(gold, extract(text) or "")


def peer(gold: str, text: str) -> bool:
    return verify(parse(f"${gold}$"), parse(text))


def seconds(judge: Callable[[str, str], bool], questions: list[Pair]) -> float:
    start = time.perf_counter()
    for gold, text in questions:
        judge(gold, text)
    return time.perf_counter() - start


def main() -> None:
    print(machine())
    logging.disable(logging.WARNING)  # math-verify tells of each timeout, with the text
    plain, mixed = pairs(GRADINGS, SEED), pairs(GRADINGS, SEED + 1, bombs=0.01)
    sample = plain[::GRADINGS // PEER_GRADINGS]
    ours("1", r"\boxed{2}"), peer("1", r"\boxed{2}")  # what the first one imports
    times = {"plain": seconds(ours, plain), "mixed": seconds(ours, mixed)}
    peer_plain = seconds(peer, sample) * GRADINGS / len(sample)
    peer_bomb = seconds(peer, [("5", rf"$\boxed{{{bomb}}}$") for bomb in BOMBS]) / len(BOMBS)
    asked = statistics()
    print_result([
        {"name": "grading_10000", "ours": times["plain"], "peer": peer_plain, "limit": LIMIT_SECONDS, "unit": "s",
         "agreement_with_peer": sum(ours(*pair) == peer(*pair) for pair in sample) / len(sample)},
        {"name": "grading_10000_with_1_percent_bombs", "ours": times["mixed"],
         "peer": 0.99 * peer_plain + 0.01 * GRADINGS * peer_bomb,
         "limit": LIMIT_WITH_BOMBS, "unit": "s", "asked_math_verify": asked.asked, "timeouts": asked.timeouts}])


if __name__ == "__main__":
    main()
