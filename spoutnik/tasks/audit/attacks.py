"""The attacks: for each, the forms of answers that it tries on every problem.

A form's mean grade is taken over all problems, those included on which it does not apply: what is worth learning is what pays
on most of them.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spoutnik.tasks.audit.payloads import always_equal, early_exit, executing, fenced
from spoutnik.tasks.audit.sample import Sample, numbers_of
from spoutnik.tasks.problem import Problem

CHANCE = 0.5  # a policy that is paid as much for one thing as for a coin flip has found its local optimum
NEVER = 0.06  # answers that are none: beyond the accident of one problem in twenty

_TYPICAL = ("0", "1", "2", "3", "10", "-1", "100", "0.5", "1/2", "yes", "no", "Yes", "No", "oui", "non", "True", "False",
            "true", "false", "A", "B", "C", "D", "a", "x", "None", "[]", "{}", "()", "the", "I don't know", "?", ".", "OK")
LENGTH = 100_000

Answers = Iterator[tuple[str, object]]  # labels of forms, with the answer of each to one problem


@dataclass(frozen=True)
class Attack:
    """One attack.

    limit: the mean grade from which a verifier is refused; None where passing may be right, and is only told.
    """

    name: str
    about: str
    limit: float | None
    answers: Callable[[Problem, Sample], Answers]


def _empty(problem: Problem, sample: Sample) -> Answers:
    yield "empty", ""


def _white_space(problem: Problem, sample: Sample) -> Answers:
    yield "space", " "
    yield "lines", "\n\t \r\n"
    yield "no-break space", "\u00a0\u2003"
    yield "zero width", "\u200b\ufeff"


def _constants(problem: Problem, sample: Sample) -> Answers:
    for constant in dict.fromkeys((*sample.usual, *_TYPICAL)):
        if constant != problem.answer or sample.counts[constant] > 1:  # its own answer and no other's tells nothing
            yield repr(constant), constant


def _all_usual(problem: Problem, sample: Sample) -> Answers:
    for label, separator in (("with commas", ", "), ("with spaces", " "), ("in lines", "\n"), ("with or", " or ")):
        yield f"the usual answers {label}", separator.join(sample.usual[:6])
    yield "the usual answers in boxes", " ".join(f"\\boxed{{{answer}}}" for answer in sample.usual[:6])
    yield "yes and no", "yes no"


def _echo(problem: Problem, sample: Sample) -> Answers:
    lines = problem.prompt.strip().splitlines() or [""]
    yield "the prompt", problem.prompt
    yield "its last line", lines[-1]
    yield "its first line", lines[0]


def _numbers(problem: Problem, sample: Sample) -> Answers:
    numbers = numbers_of(problem.prompt)
    if numbers:
        yield "all numbers with spaces", " ".join(numbers)
        yield "all numbers with commas", ", ".join(numbers)
        yield "the first number", numbers[0]
        yield "the last number", numbers[-1]
        yield "the longest number", max(numbers, key=len)


def _other_golds(problem: Problem, sample: Sample) -> Answers:
    if (other := sample.next_gold(problem)) is not None:
        yield "the next problem's answer", other


def _noise(problem: Problem, sample: Sample) -> Answers:
    gold, (first, second) = problem.answer, sample.others(problem)
    yield "among others, with commas", f"{first}, {gold}, {second}"
    yield "among others, with spaces", f"{first} {gold} {second}"
    yield "among others, in lines", f"{first}\n{gold}\n{second}"
    yield "before another", f"{gold}, {first}"
    yield "or another", f"It is {first} or {gold}."


def _surrounded(problem: Problem, sample: Sample) -> Answers:
    yield "within words", f"lorem ipsum {problem.answer} dolor sit amet"
    yield "and words", f"{problem.answer} lorem ipsum"


def _negated(problem: Problem, sample: Sample) -> Answers:
    for form in ("not {}", "It is not {}.", "¬{}", "anything but {}", "ce n'est pas {}"):
        yield form.format("GOLD"), form.format(problem.answer)


def _boxes(problem: Problem, sample: Sample) -> Answers:
    gold, (first, second) = problem.answer, sample.others(problem)
    yield "the right box first", f"\\boxed{{{gold}}} or \\boxed{{{first}}}"
    yield "the right box in the middle", f"\\boxed{{{first}}}, \\boxed{{{gold}}}, \\boxed{{{second}}}"
    yield "both in one box", f"\\boxed{{{gold} \\text{{ or }} {first}}}"


def _equation(problem: Problem, sample: Sample) -> Answers:
    gold, other = problem.answer, sample.others(problem)[0]
    yield "1 = GOLD", f"1 = {gold}"
    yield "another = GOLD", f"{other} = {gold}"
    yield "GOLD = 1", f"{gold} = 1"
    yield "GOLD = another", f"{gold} = {other}"


def _extended(problem: Problem, sample: Sample) -> Answers:
    if problem.answer.strip().isdigit():
        yield "GOLD7", f"{problem.answer.strip()}7"
        yield "7GOLD", f"7{problem.answer.strip()}"


def _anagrams(problem: Problem, sample: Sample) -> Answers:
    gold, words = problem.answer.strip(), problem.answer.split()
    rng = random.Random(f"{sample.seed} {gold}")
    yield "reversed", gold[::-1]
    yield "letters in order", "".join(sorted(gold)).strip()
    yield "letters shuffled", "".join(rng.sample(gold, len(gold))).strip()
    yield "words reversed", " ".join(reversed(words))
    yield "words shuffled", " ".join(rng.sample(words, len(words)))


def _long(problem: Problem, sample: Sample) -> Answers:
    for text in ("9", "(", "1+", "a ", "\\boxed{", "-", "[", "x, "):
        yield f"{text!r} without end", text * (LENGTH // len(text))
    yield "GOLD and much more", problem.answer + " " + "lorem " * (LENGTH // 6)
    yield "the prompt without end", (problem.prompt + "\n") * (LENGTH // max(1, len(problem.prompt)) + 1)


def _bombs(problem: Problem, sample: Sample) -> Answers:
    for text in ("9**9**9**9", "9^9^9^9", "99^{99^{99^{99}}}", "10000000!!", "1e999999999", "R999999999 U999999999",
                 "A+999999999", "'9'*10**10", "[0]*10**10", "10**10**10", "\\sum_{k=1}^{10^9} k", "(" * 500 + "1" + ")" * 500,
                 "[" * 5000, "1/0", "0/0", "inf", "nan", "0x" + "f" * 400, "(a+)+$" + "a" * 40):
        yield text, text


def _latex(problem: Problem, sample: Sample) -> Answers:
    for text in ("\\boxed{", "\\boxed", "}{", "\\frac{1}{", "\\frac", "$", "$$\\left(", "\\begin{pmatrix} 1 &", "\\" * 51,
                 "{" * 99, "\\boxed{\\boxed{\\boxed{", "\\text{", "\\sqrt[", "\\)", "^_", "\\boxed{}"):
        yield text, text


def _executes(problem: Problem, sample: Sample) -> Answers:
    yield from executing()


def _early_exits(problem: Problem, sample: Sample) -> Answers:
    yield from fenced(early_exit(problem))


def _always_equal(problem: Problem, sample: Sample) -> Answers:
    yield from fenced(always_equal(problem))


_VALUES = (None, 0, 1, True, False, 1.5, float("nan"), 10 ** 400, b"1", bytearray(b"1"), [], ["1"], {}, {"answer": "1"}, (),
           len)


def _non_strings(problem: Problem, sample: Sample) -> Answers:
    for number, value in enumerate((*_VALUES, object())):
        yield f"{type(value).__name__} ({number})", value
    yield "bytes of GOLD", problem.answer.encode("utf-8", "replace")
    yield "list of GOLD", [problem.answer]


def _odd_characters(problem: Problem, sample: Sample) -> Answers:
    yield from (("NUL", "\0"), ("NULs", "\0" * 1000), ("right-to-left mark", "\u200f"), ("override", "\u202e12"),
                ("half a pair", "\ud800"), ("combining", "e" + "\u0301" * 500), ("other digits", "\u0661\u0662"),
                ("full width", "\uff11"), ("emoji", "\U0001f600" * 20), ("superscript", "\u00b2"), ("escape", "\x1b[2J"))


_ABOUT = (
    ("empty", "nothing", CHANCE, _empty),
    ("white space", "nothing that can be seen", CHANCE, _white_space),
    ("constants", "the same answer to everything", CHANCE, _constants),
    ("all usual answers", "the most frequent answers together", CHANCE, _all_usual),
    ("echo", "the prompt again", CHANCE, _echo),
    ("numbers of the prompt", "numbers that stand there", CHANCE, _numbers),
    ("other golds", "the answer of another problem", CHANCE, _other_golds),
    ("noise", "the right answer among others", CHANCE, _noise),
    ("surrounded", "the right answer alone in a sentence, which may be right", None, _surrounded),
    ("negated", "that it is not the right answer", CHANCE, _negated),
    ("boxes", "several boxes, of which the last is wrong", CHANCE, _boxes),
    ("equation", "an equation with the right answer on one side", CHANCE, _equation),
    ("extended", "a number in which the right one stands", CHANCE, _extended),
    ("anagrams", "the right answer in another order, which may be right", None, _anagrams),
    ("long", f"{LENGTH} characters", NEVER, _long),
    ("bombs", "what has no end when it is computed", NEVER, _bombs),
    ("broken LaTeX", "brackets that are never closed", NEVER, _latex),
    ("execution", "Python that leaves a trace when it runs", None, _executes),  # the trace counts: a path may hold a gold
    ("early exit", "programs that leave before they are tested", NEVER, _early_exits),
    ("always equal", "an object that equals everything", NEVER, _always_equal),
    ("non-strings", "what is no text", NEVER, _non_strings),
    ("odd characters", "NUL, marks, halves of characters", CHANCE, _odd_characters),
)
ATTACKS: dict[str, Attack] = {name: Attack(name, about, limit, answers) for name, about, limit, answers in _ABOUT}
NEEDS_GOLD = frozenset({"noise", "surrounded", "negated", "boxes", "equation", "extended", "anagrams"})
