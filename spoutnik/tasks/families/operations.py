"""One operation on two numbers, asked as people ask it: `What is 17 + 26?`, `6 fois 7`, `Subtract 7 from 12.`"""

import random
import re
from collections.abc import Iterable
from dataclasses import replace

from spoutnik.tasks import phrases
from spoutnik.tasks.answers import as_integer
from spoutnik.tasks.family import Family, check_request, structure_key
from spoutnik.tasks.problem import Problem, Trace, check_style
from spoutnik.tasks.steps import product_steps, slip_position, sum_steps, write_step

TEXT = {
    "en": {
        "prompt": ("What is {e} ?", "What is {e} ?", "What is {e} ?", "How much is {e} ?", "How much is {e} ?", "Compute {e}.",
                   "Calculate {e}.", "{e}", "{e} ?", "{e} = ?", "{e} =", "What's {e} ?", "What does {e} make ?",
                   "What does {e} equal ?", "Can you compute {e} ?", "Tell me {e}.", "How much does {e} make ?",
                   "What is the result of {e} ?", "Give me the value of {e}.", "Can you tell me what {e} is ?", "Solve {e}."),
        "follow_up": ("And {e} ?", "And {e} ?", "What about {e} ?", "And what is {e} ?", "Now {e}.", "And how much is {e} ?"),
        "+": ("What is the sum of {a} and {b} ?", "Add {a} and {b}.", "Add {b} to {a}.", "What do {a} and {b} make ?"),
        "-": ("What is the difference between {a} and {b} ?", "Subtract {b} from {a}.", "Take {b} away from {a}.",
              "What is {b} less than {a} ?"),
        "*": ("What is the product of {a} and {b} ?", "Multiply {a} by {b}.", "How much is {a} times {b} ?"),
        "/": ("Divide {a} by {b}.", "What is {a} divided by {b} ?", "How many times does {b} go into {a} ?"),
        "on": {"+": ("Add {b}.", "Plus {b} ?", "And plus {b} ?", "Now add {b} to that.", "Add {b} to it."),
               "-": ("Subtract {b}.", "Minus {b} ?", "And minus {b} ?", "Now take {b} away from that.",
                     "Subtract {b} from it."),
               "*": ("Multiply it by {b}.", "Times {b} ?", "And times {b} ?", "Now multiply that by {b}.")},
        "words": {"+": "plus", "-": "minus", "*": "times", "/": "divided by"},
        "yes": "{back}, yes",
        "so": "so {e}",
    },
    "fr": {
        "prompt": ("Combien font {e} ?", "Combien font {e} ?", "Combien font {e} ?", "Combien fait {e} ?", "Calcule {e}.",
                   "Que vaut {e} ?", "Quel est le résultat de {e} ?", "{e}", "{e} ?", "{e} = ?", "{e} =",
                   "C'est combien {e} ?",
                   "Ça fait combien, {e} ?", "Peux-tu calculer {e} ?", "Donne-moi le résultat de {e}.",
                   "Dis-moi combien font {e}.",
                   "Combien vaut {e} ?", "C'est quoi {e} ?", "Quelle est la valeur de {e} ?",
                   "À combien est égal {e} ?"),
        "follow_up": ("Et {e} ?", "Et {e} ?", "Et combien font {e} ?", "Et maintenant {e} ?", "Et que vaut {e} ?"),
        "+": ("Quelle est la somme de {a} et {b} ?", "Additionne {a} et {b}.", "Ajoute {b} à {a}.",
              "Combien font {a} et {b} ?"),
        "-": ("Quelle est la différence entre {a} et {b} ?", "Soustrais {b} de {a}.", "Enlève {b} à {a}.",
              "Retire {b} de {a}."),
        "*": ("Quel est le produit de {a} et {b} ?", "Multiplie {a} par {b}.", "Combien font {a} fois {b} ?"),
        "/": ("Divise {a} par {b}.", "Combien fait {a} divisé par {b} ?", "Combien de fois {b} est-il dans {a} ?"),
        "on": {"+": ("Ajoute {b}.", "Plus {b} ?", "Et plus {b} ?", "Maintenant ajoute {b}.", "Et si on ajoute {b} ?"),
               "-": ("Enlève {b}.", "Moins {b} ?", "Et moins {b} ?", "Maintenant enlève {b}.", "Et si on enlève {b} ?"),
               "*": ("Multiplie par {b}.", "Fois {b} ?", "Et fois {b} ?", "Maintenant multiplie par {b}.")},
        "words": {"+": "plus", "-": "moins", "*": "fois", "/": "divisé par"},
        "yes": "{back}, oui",
        "so": "donc {e}",
    },
}
NUMBERS = {
    "en": """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen twenty""".split(),
    "fr": """zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit
        dix-neuf vingt""".split(),
}
SIGNS = {"*": ("*", "*", "x", "x", "×"), "/": ("/", "/", "÷")}  # as people type them
INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


def value_of(a: int, sign: str, b: int) -> int:
    """The value of one operation; divisions here are exact."""
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[sign]

IN_WORDS_SHARE = 0.12  # of the questions as people type them: "What is two plus two?"


class Operations(Family):
    """Level 1: sums and differences to 30, small tables. Level 2: two digits. Level 3: products, quotients, three digits."""

    name = "operations"
    levels = (1, 2, 3)
    structure = "the sign and the numbers, in either order of a sum or product: the question alone, for drills state such facts"

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        check_request(self, level, language)
        return self.pose(*_draw(rng, level), level, language, rng)

    def pose(self, a: int, sign: str, b: int, level: int, language: str, rng: random.Random) -> Problem:
        """The problem of computing `a sign b`, in one of its wordings."""
        text = TEXT[language]
        if rng.random() < 0.2 and a >= 0:
            prompt = rng.choice(text[sign]).format(a=a, b=b)
        else:
            prompt = rng.choice(text["prompt"]).format(e=_written(a, sign, b, language, rng))
        return self._problem(a, sign, b, level, language, prompt)

    def follow_up(self, previous: Problem, rng: random.Random) -> Problem:
        """The next question of a conversation: another operation in few words, or one on the result of the last."""
        text, language = TEXT[previous.language], previous.language
        value = int(previous.answer)
        if rng.random() < 0.5 or not 0 <= value <= 400:
            a, sign, b = _draw(rng, previous.level)
            prompt = rng.choice(text["follow_up"]).format(e=_written(a, sign, b, language, rng))
            return self._problem(a, sign, b, previous.level, language, prompt)
        sign = rng.choice("++-*" if value <= 99 else "++-")
        b = rng.randint(2, 9) if sign == "*" else rng.randint(1, 30 if value > 20 or sign == "+" else max(value, 1))
        prompt = rng.choice(text["on"][sign]).format(b=b)
        return self._problem(value, sign, b, previous.level, language, prompt)

    def _problem(self, a: int, sign: str, b: int, level: int, language: str, prompt: str) -> Problem:
        data = {"operation": [a, sign, b]}
        return Problem(self, level, language, prompt, str(value_of(a, sign, b)), data)

    def as_typed(self, problem: Problem, rng: random.Random) -> Problem:
        problem = super().as_typed(problem, rng)
        if rng.random() < IN_WORDS_SHARE:
            problem = replace(problem, prompt=in_words(problem.prompt, problem.language))
        return problem

    def structures(self, problem: Problem) -> Iterable[str]:
        a, sign, b = problem.data["operation"]
        return (structure_key(self.name, [*(sorted((a, b)) if sign in "+*" else (a, b)), sign]),)

    def verify(self, problem: Problem, answer: str) -> bool:
        return as_integer(answer) == value_of(*problem.data["operation"])

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace:
        check_style(self, style)
        a, sign, b = problem.data["operation"]
        if style == "quick":
            return Trace(f"{a} {sign} {b} = {problem.answer}.", problem.answer)
        return Trace(_careful(a, sign, b, rng, problem.language), problem.answer)


def _draw(rng: random.Random, level: int) -> tuple[int, str, int]:
    """Two numbers and a sign. Small ones are as frequent as large ones: people try small ones first."""
    if level == 1:
        sign = rng.choice("+++--*")
        if sign == "*":
            return rng.randint(0, 10), sign, rng.randint(1, 10)
        largest = rng.choice((10, 20, 30))
        a, b = rng.randint(0, largest), rng.randint(1, largest)
    elif level == 2:
        sign = rng.choice("++-")
        a, b = rng.randint(1, 100), rng.randint(10, 100)
        a, b = (b, a) if rng.random() < 0.5 else (a, b)
    else:
        sign = rng.choice("**//+-")
        if sign == "*":
            a, b = rng.randint(11, 99), rng.randint(2, 12)
            return (a, sign, b) if rng.random() < 0.6 else (b, sign, a)
        if sign == "/":
            divisor = rng.randint(2, 12)
            return divisor * rng.randint(1, 12), sign, divisor
        a, b = rng.randint(100, 999), rng.randint(1, 999)
    return (b, sign, a) if sign == "-" and a < b and rng.random() < 0.8 else (a, sign, b)


def _written(a: int, sign: str, b: int, language: str, rng: random.Random) -> str:
    """The operation as people type it: with or without spaces, in words, with the signs of a keyboard."""
    shape = rng.random()
    if shape < 0.2 or shape < 0.25 and max(a, b) > 20:
        return f"{a} {TEXT[language]['words'][sign]} {b}"
    if shape < 0.25 and min(a, b) >= 0:
        return f"{NUMBERS[language][a]} {TEXT[language]['words'][sign]} {NUMBERS[language][b]}"
    sign = rng.choice(SIGNS.get(sign, (sign,)))
    return f"{a}{sign}{b}" if shape < 0.4 else f"{a} {sign} {b}"


def _careful(a: int, sign: str, b: int, rng: random.Random, language: str) -> str:
    """The operation, its steps, and the inverse operation as a check where it is one step."""
    text, value = TEXT[language], value_of(a, sign, b)
    if sign == "/":
        fact = f"{b} * {value} = {a}"
        return f"{phrases.opening(rng, language)}{a} / {b}. {fact}, {text['so'].format(e=f'{a} / {b} = {value}')}."
    steps = product_steps(a, b) if sign == "*" else sum_steps(a, sign, b)
    slip_at = slip_position(rng, len(steps))
    sentences = [] if len(steps) == 1 else [f"{a} {sign} {b}."]
    sentences += [write_step(step, rng, language, index == slip_at) for index, step in enumerate(steps)]
    if sign != "*" and (len(steps) == 1 or rng.random() < 0.2):
        back = f"{value} {INVERSE[sign]} {b} = {a}"
        sentences.append(phrases.check(rng, language, text["yes"].format(back=back)))
    elif len(steps) == 1:
        sentences.append(phrases.check(rng, language, f"{b} * {a} = {value}"))
    return phrases.opening(rng, language) + " ".join(sentences)


def in_words(prompt: str, language: str) -> str:
    """The question with its numbers up to twenty and its signs in words: What is two plus two?"""
    words = TEXT[language]["words"]
    prompt = re.sub(r"(?<=\d) ?([-+*x]) ?(?=\d)", lambda match: f" {words[match[1].replace('x', '*')]} ", prompt)
    return re.sub(r"\b\d+\b", lambda match: _number(int(match[0]), language), prompt)


def _number(value: int, language: str) -> str:
    return NUMBERS[language][value] if value < len(NUMBERS[language]) else str(value)
