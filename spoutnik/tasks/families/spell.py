"""The letters of a word, asked as people ask for them: `How many r's are in strawberry?`

A word is held out as a whole, with all its letters: whether a model spells or remembers shows on words it has not seen.
"strawberry" is held out.
"""

import random
from collections.abc import Iterable

from spoutnik.tasks import phrases
from spoutnik.tasks.answers import as_integer
from spoutnik.tasks.families.letters import count_letters, word_key
from spoutnik.tasks.family import Family, check_request
from spoutnik.tasks.problem import Problem, Trace, check_style
from spoutnik.tasks.steps import slip_position
from spoutnik.tasks.vocabulary import any_word

TEXT = {
    "en": {
        "count": ("How many {l}'s are in {w} ?", "How many {l}'s are in {w} ?", "How many {l}'s are there in {w} ?",
                  "How many {l}s are in {w} ?", "How many {l} are in {w} ?", "How many {l}'s in {w} ?", "How many {l} in {w} ?",
                  "How many times does {l} appear in {w} ?", "How many times does the letter {l} appear in {w} ?",
                  "How often does {l} occur in {w} ?", "How many times is {l} in {w} ?",
                  "How many times is the letter {l} in {w} ?",
                  "Count the letter {l} in {w}.", "Count the {l}'s in {w}.", "Count the letters {l} in {w}.",
                  "Count how many {l}'s are in {w}.", "How many letters {l} are in {w} ?",
                  "What is the number of {l}'s in {w} ?",
                  "In {w}, how many {l}'s are there ?", "How many {l}'s does {w} have ?",
                  "How many {l}'s does {w} contain ?",
                  "Number of {l} in {w}"),
        "word_follow_up": ("And in {w} ?", "And {w} ?", "What about {w} ?", "And how many in {w} ?"),
        "letter_follow_up": ("And how many {l}'s ?", "And the letter {l} ?", "What about {l} ?", "And {l} ?"),
        "length": ("How many letters are in {w} ?", "How many letters does {w} have ?", "How many letters are there in {w} ?",
                   "Count the letters in {w}.", "How long is {w} ?", "What is the length of {w} ?"),
        "the_word": "the word {w}",
        "letter": "Letter {l}: ",
        "total": "Total {n}.",
        "quick": "{n} in {w}.",
    },
    "fr": {
        "count": ("Combien de {l} y a-t-il dans {w} ?", "Combien de {l} y a-t-il dans {w} ?",
                  "Combien y a-t-il de {l} dans {w} ?",
                  "Combien de {l} dans {w} ?", "Combien de {l} sont dans {w} ?", "Combien de fois {l} apparaît dans {w} ?",
                  "Combien de fois la lettre {l} apparaît-elle dans {w} ?", "Combien de fois y a-t-il {l} dans {w} ?",
                  "Combien de fois la lettre {l} est-elle dans {w} ?", "Combien de lettres {l} y a-t-il dans {w} ?",
                  "Compte la lettre {l} dans {w}.", "Compte les {l} dans {w}.", "Compte le nombre de {l} dans {w}.",
                  "Quel est le nombre de {l} dans {w} ?",
                  "Dans {w}, combien y a-t-il de {l} ?", "Combien de {l} contient {w} ?",
                  "Il y a combien de {l} dans {w} ?", "Combien de {l} comporte {w} ?", "Nombre de {l} dans {w}"),
        "word_follow_up": ("Et dans {w} ?", "Et {w} ?", "Et combien dans {w} ?"),
        "letter_follow_up": ("Et combien de {l} ?", "Et la lettre {l} ?", "Et {l} ?", "Et les {l} ?"),
        "length": ("Combien de lettres y a-t-il dans {w} ?", "Combien de lettres a {w} ?", "Combien de lettres contient {w} ?",
                   "Compte les lettres de {w}.", "Combien y a-t-il de lettres dans {w} ?", "Quelle est la longueur de {w} ?"),
        "the_word": "le mot {w}",
        "letter": "Lettre {l} : ",
        "total": "Total {n}.",
        "quick": "{n} dans {w}.",
    },
}
COUNTS = ((0, 1, 2, 3, 4), (14, 27, 30, 22, 7))  # of the letter, with their weights


class Spell(Family):
    """Level 1: a letter in a word of 3 to 7. Level 2: in a word of 8 to 14. Level 3: how many letters, 3 to 13."""

    name = "spell"
    levels = (1, 2, 3)
    structure = "the word, which no family then spells in training"

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        check_request(self, level, language)
        if level == 3:
            return self.pose(any_word(rng, 3, 13), "", level, language, rng)
        wanted = rng.choices(*COUNTS)[0]
        while True:
            word = any_word(rng, *((3, 7) if level == 1 else (8, 14)))
            letters = [letter for letter in sorted(set(word)) if word.count(letter) == wanted]
            letters = letters if wanted else sorted(set("abcdefghilmnoprstuvxyz") - set(word))
            if letters:
                return self.pose(word, rng.choice(letters), level, language, rng)

    def pose(self, word: str, letter: str, level: int, language: str, rng: random.Random) -> Problem:
        """The problem of counting a letter in a word, both in lower case; without a letter, all of them."""
        wording = rng.choice(TEXT[language]["count" if letter else "length"])
        prompt = wording.format(l=_letter_as_typed(letter, rng), w=_word_as_typed(word, language, rng))
        return self._problem(word, letter, level, language, prompt)

    def follow_up(self, previous: Problem, rng: random.Random) -> Problem:
        """The same letter in another word, or another letter of the same word."""
        text, word, letter = TEXT[previous.language], previous.data["word"], previous.data["shown_letter"]
        if letter and rng.random() < 0.5:
            others = sorted(set(word) - {letter})
            letter = rng.choice(others or ["z"])
            prompt = rng.choice(text["letter_follow_up"]).format(l=_letter_as_typed(letter, rng))
        else:
            word = any_word(rng, 3, 10)
            prompt = rng.choice(text["word_follow_up"]).format(w=_word_as_typed(word, previous.language, rng))
        return self._problem(word, letter, previous.level, previous.language, prompt)

    def _problem(self, word: str, letter: str, level: int, language: str, prompt: str) -> Problem:
        answer = str(word.count(letter) if letter else len(word))
        return Problem(self, level, language, prompt, answer, {"word": word, "shown_letter": letter})

    def structures(self, problem: Problem) -> Iterable[str]:
        return (word_key(problem.data["word"]),)

    def verify(self, problem: Problem, answer: str) -> bool:
        return as_integer(answer) == int(problem.answer)

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace:
        check_style(self, style)
        text, word, letter = TEXT[problem.language], problem.data["word"], problem.data["shown_letter"]
        if style == "quick":
            return Trace(text["quick"].format(n=problem.answer, w=word), problem.answer)
        opening = phrases.opening(rng, problem.language)
        if letter:
            opening += text["letter"].format(l=letter)
            return Trace(opening + count_letters([word], letter, rng, problem.language), problem.answer)
        return Trace(opening + _number_letters(word, rng, problem.language), problem.answer)


def _number_letters(word: str, rng: random.Random, language: str) -> str:
    """Every letter with its number; a slip gives a number twice."""
    slip_at, marks, sentences = slip_position(rng, len(word) - 1) + 1, [], []
    for number, letter in enumerate(word, start=1):
        if slip_at and number == slip_at + 1:
            sentences.append(", ".join([*marks, f"{letter} {number - 1}"]) + ".")
            sentences.append(phrases.repair(rng, language, f"{letter} {number}"))
            marks = []
        else:
            marks.append(f"{letter} {number}")
    if marks:
        sentences.append(", ".join(marks) + ".")
    return " ".join([*sentences, TEXT[language]["total"].format(n=len(word))])


def _letter_as_typed(letter: str, rng: random.Random) -> str:
    shape = rng.random()
    return letter.upper() if shape < 0.15 else f'"{letter}"' if shape < 0.22 else letter


def _word_as_typed(word: str, language: str, rng: random.Random) -> str:
    """Bare or in quotes, capitalised or not, sometimes introduced: the word strawberry."""
    shape = rng.random()
    word = word.capitalize() if shape < 0.1 else word.upper() if shape < 0.13 else word
    quote = rng.random()
    word = f'"{word}"' if quote < 0.25 else f"'{word}'" if quote < 0.3 else word
    return TEXT[language]["the_word"].format(w=word) if rng.random() < 0.3 else word
