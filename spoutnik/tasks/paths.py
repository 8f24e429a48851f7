"""Ways to combine numbers two by two: `12 - 7 = 5, 5 * 3 = 15`. Intermediate values stay positive integers."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """Successive operations, the final value and the same computation as one expression."""

    steps: tuple[str, ...]
    value: int
    expression: str

    @property
    def text(self) -> str:
        return ", ".join(self.steps)


@dataclass(frozen=True)
class _Item:
    """A number available at some point, with the operand that stands for it in a longer expression."""

    value: int
    operand: str  # "7", or "(12 - 5)" for a number that was computed


def _combine(a: _Item, b: _Item, operator: str, ceiling: int) -> tuple[str, _Item] | None:
    """One operation, the larger number first; None when its value is not in 1..ceiling."""
    a, b = (a, b) if a.value >= b.value else (b, a)
    value = {"+": a.value + b.value, "-": a.value - b.value, "*": a.value * b.value}[operator]
    if not 1 <= value <= ceiling:
        return None
    # Parentheses even where they are superfluous: the expression follows from the steps by substitution alone.
    return f"{a.value} {operator} {b.value} = {value}", _Item(value, f"({a.operand} {operator} {b.operand})")


def _path(steps: tuple[str, ...], last: _Item) -> Path:
    return Path(steps, last.value, last.operand[1:-1])


def _items(numbers: list[int]) -> list[_Item]:
    return [_Item(number, str(number)) for number in numbers]


def random_path(numbers: list[int], operators: str, ceiling: int, rng: random.Random) -> Path | None:
    """A random way to use all the numbers, or None when it leaves 1..ceiling."""
    items, steps = _items(numbers), []
    while len(items) > 1:
        a, b = (items.pop(rng.randrange(len(items))) for _ in range(2))
        combined = _combine(a, b, rng.choice(operators), ceiling)
        if combined is None:
            return None
        steps.append(combined[0])
        items.append(combined[1])
    return _path(tuple(steps), items[0])


def all_paths(numbers: list[int], operators: str, ceiling: int) -> list[Path]:
    """Every way to use all the numbers, each set of operations once, in a fixed order."""
    paths: dict[frozenset[str], Path] = {}

    def extend(items: list[_Item], steps: tuple[str, ...]) -> None:
        if len(items) == 1:
            paths.setdefault(frozenset(steps), _path(steps, items[0]))
            return
        for i, a in enumerate(items):
            for j in range(i + 1, len(items)):
                rest = items[:i] + items[i + 1 : j] + items[j + 1 :]
                for operator in operators:
                    combined = _combine(a, items[j], operator, ceiling)
                    if combined is not None:
                        extend([*rest, combined[1]], (*steps, combined[0]))

    extend(_items(numbers), ())
    return list(paths.values())
