"""Single elementary facts, in the very words that the careful procedures use, several per document.

No drill solves a whole problem: sums have two terms, reversed letters make no word, weekdays advance by two at most.
So the drills leak nothing of the held-out problems.
"""

import random
from collections.abc import Callable, Sequence
from functools import partial

from spoutnik.tasks.families import bases, calendar
from spoutnik.tasks.families.letters import TEXT as LETTERS
from spoutnik.tasks.families.letters import word_key
from spoutnik.tasks.family import Family
from spoutnik.tasks.names import NAMES
from spoutnik.tasks.problem import held_out_by_hash
from spoutnik.tasks.steps import product_steps, sum_steps
from spoutnik.tasks.word_list import CONSONANTS, VOWELS, word

Drill = Callable[..., str]  # (rng, language) -> one fact as a sentence; for a spelled word, also which words it may be

SPELLED = {"en": "{word}: {letters}.", "fr": "{word} : {letters}."}


def sum_drill(rng: random.Random, language: str, sign: str = "+", largest: int = 30) -> str:
    """`17 + 8 = 25.`, sometimes decomposed, sometimes from a negative number."""
    a, b = rng.choice(((rng.randint(-30, largest), rng.randint(0, 20)), (rng.randint(-60, 400), rng.randint(1, 99))))
    return " ".join(f"{left} = {value}." for left, value in sum_steps(a, sign, b))


difference_drill = partial(sum_drill, sign="-", largest=40)


def product_drill(rng: random.Random, language: str) -> str:
    """Mostly tables; sometimes tens, sometimes a decomposed product, sometimes a negative factor."""
    if rng.random() < 0.2:
        a, b = rng.randint(2, 9), -rng.randint(1, 9)
        return f"{a} * ({b}) = {a * b}."
    if rng.random() < 0.2:
        a, b = rng.randint(13, 30), rng.randint(2, 6)
        return f"{a} * {b} = {a * b}."  # at once, as the attempts of countdown write it
    a, b = rng.choice(((rng.randint(0, 12), rng.randint(0, 12)), (rng.randint(1, 9) * 10, rng.randint(2, 9))))
    if rng.random() < 0.3:
        a, b = rng.randint(11, 99), rng.randint(2, 9)
    return " ".join(f"{left} = {value}." for left, value in product_steps(a, b))


def division_drill(rng: random.Random, language: str) -> str:
    """Exact division, as equations write it, or division with remainder, as bases write it."""
    if rng.random() < 0.4:
        divisor, quotient = rng.choice((-1, 1)) * rng.randint(1, 9), rng.randint(-9, 12)
        written = divisor if divisor > 0 else f"({divisor})"
        return f"{divisor * quotient} / {written} = {quotient}."
    base = rng.randint(2, 9)
    number = rng.randrange(10 * base)
    quotient, remainder = divmod(number, base)
    wording = bases.TEXT[language][rng.choice(("divide", "digit"))]
    return wording.format(n=number, b=base, q=quotient, r=remainder) + "."


def power_drill(rng: random.Random, language: str) -> str:
    """Successive powers of a base from 2 to 9, at most 512."""
    base = rng.randint(2, 9)
    return ", ".join(str(base**exponent) for exponent in range(10) if base**exponent <= 512) + "."


def weekday_drill(rng: random.Random, language: str) -> str:
    names, start, direction = calendar.WEEKDAYS[language], rng.randrange(7), rng.choice((-1, 1))
    first, second = (names[(start + direction * step) % 7] for step in (1, 2))
    return f"{names[start]}, 1 {first}, 2 {second}."


def month_drill(rng: random.Random, language: str) -> str:
    return calendar.month_sentence(rng.randrange(12), language)


def week_drill(rng: random.Random, language: str) -> str:
    """What is left of a number of days once the whole weeks are gone."""
    days = rng.randint(7, 76)
    return f"{days} - {days // 7 * 7} = {days % 7}."


def words_to_spell(families: Sequence[Family]) -> Callable[[str], bool]:
    """Whether a text of training may spell a word: with families held out by structure, those of the training split alone."""
    by_structure = any(family.held_out == "structure" for family in families)
    return lambda drawn: not (by_structure and held_out_by_hash(word_key(drawn)))


def spelling_drill(rng: random.Random, language: str, may_spell: Callable[[str], bool]) -> str:
    drawn = word(rng, 3, 7)
    while not may_spell(drawn):
        drawn = word(rng, 3, 7)
    return SPELLED[language].format(word=drawn, letters=", ".join(drawn))


def backwards_drill(rng: random.Random, language: str) -> str:
    """Letters that make no word, spelled from the end and joined."""
    drawn = [rng.choice(CONSONANTS if rng.random() < 0.8 else VOWELS) for _ in range(rng.randint(2, 3))]
    text = LETTERS[language]
    backwards = drawn[::-1]
    joined = text["so"].format(answer="".join(backwards))
    return f"{', '.join(drawn)}. {text['backwards']}{', '.join(backwards)}. {joined}"


def chain_drill(rng: random.Random, language: str) -> str:
    """One person joins a chain at its top or at its bottom."""
    chain = rng.sample(NAMES, rng.randint(3, 5))
    pair, rest = (chain[:2], chain[1:]) if rng.random() < 0.5 else (chain[-2:], chain[:-1])
    return f"{' > '.join(rest)}. {' > '.join(pair)}. {' > '.join(chain)}."


DRILLS: tuple[Drill, ...] = (  # named twice: twice as frequent, because the procedures lean on them the most
    sum_drill, sum_drill, difference_drill, difference_drill, product_drill, product_drill, division_drill, division_drill,
    power_drill, weekday_drill, month_drill, week_drill, spelling_drill, spelling_drill, backwards_drill, chain_drill)


def drill_document(rng: random.Random, language: str, may_spell: Callable[[str], bool]) -> str:
    """Several facts of one kind, separated by spaces. may_spell: which words."""
    drill = rng.choice(DRILLS)
    if drill is spelling_drill:
        drill = partial(spelling_drill, may_spell=may_spell)
    return " ".join(drill(rng, language) for _ in range(rng.randint(4, 8)))
