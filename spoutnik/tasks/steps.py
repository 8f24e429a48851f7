"""Elementary computations as text. A step is one fact that a tiny transformer can look up, such as `40 * 8 = 320`."""

import random

from spoutnik.tasks import phrases

SLIP_SHARE = 0.25  # share of careful traces in which one step goes wrong and is repaired

Step = tuple[str, int]  # the left-hand side and its value


def product_steps(a: int, b: int) -> list[Step]:
    """a * b, for non-negative factors: one step within the 12 times table, otherwise digit by digit."""
    small, large = sorted((a, b))
    if large <= 12 or small <= 1 or large % 10 == 0 and large < 100:
        return [(f"{a} * {b}", a * b)]
    parts = [int(digit) * 10**place for place, digit in enumerate(reversed(str(large))) if digit != "0"][::-1]
    steps = [(f"{part} * {small}", part * small) for part in parts]
    total = steps[0][1]
    for _, value in steps[1 : len(parts)]:
        steps.append((f"{total} + {value}", total + value))
        total += value
    return steps


def sum_steps(a: int, sign: str, b: int) -> list[Step]:
    """a + b or a - b for b >= 0: at once when b <= 20, otherwise hundreds and tens first, then units."""
    steps = []
    parts = [b] if b <= 20 or b % 10 == 0 and b < 100 else [b // 10 * 10, b % 10]
    if b >= 100:
        parts = [b // 100 * 100, b % 100 // 10 * 10, b % 10]
    for part in [part for part in parts if part] or [0]:
        value = a + part if sign == "+" else a - part
        steps.append((f"{a} {sign} {part}", value))
        a = value
    return steps


def slip_position(rng: random.Random, count: int) -> int:
    """Index of the step where a trace of `count` steps slips, or -1 for the traces without a slip."""
    return rng.randrange(count) if count and rng.random() < SLIP_SHARE else -1


def near_miss(rng: random.Random, value: int) -> int:
    """A plausible wrong value: off by one or two, by ten, never the value itself, never a change of sign."""
    wrong = [value + shift for shift in (-10, -2, -1, 1, 2, 10) if (value + shift >= 0) == (value >= 0)]
    return rng.choice(wrong)


def write_step(step: Step, rng: random.Random, language: str, slip: bool) -> str:
    """One step as a sentence; with `slip`, first a wrong value and then its repair."""
    left, value = step
    return repair_or_plain(f"{left} = {value}", f"{left} = {near_miss(rng, value)}", rng, language, slip)


def repair_or_plain(fact: str, wrong: str, rng: random.Random, language: str, slip: bool) -> str:
    """A fact as a sentence; with `slip`, first the wrong statement and then its repair."""
    return f"{wrong}. {phrases.repair(rng, language, fact)}" if slip else f"{fact}."
