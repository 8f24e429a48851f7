"""Counting the letters of words and reversing words, always by spelling them first."""

import json
import random
from collections.abc import Iterable

from spoutnik.tasks import phrases
from spoutnik.tasks.answers import as_integer, as_word
from spoutnik.tasks.family import Family, check_request
from spoutnik.tasks.problem import Problem, Trace, check_style
from spoutnik.tasks.steps import slip_position
from spoutnik.tasks.word_list import word, word_with_count

TEXT = {
    "en": {
        "count": ('How many times is the letter {letter} in "{words}" ?', 'Count the letter {letter} in "{words}".',
                  'How many {letter} are there in "{words}" ?'),
        "reverse": ('Write "{word}" backwards.', 'Reverse the word "{word}".', 'Spell "{word}" from the end.'),
        "quick_count": 'The letter {letter} is {n} times in "{words}".',
        "quick_reverse": "Backwards: {answer}.",
        "backwards": "Backwards: ",
        "total": "Total {n}.",
        "so": "So {answer}.",
    },
    "fr": {
        "count": ('Combien de fois la lettre {letter} est-elle dans "{words}" ?',
                  'Compte la lettre {letter} dans "{words}".', 'Combien de {letter} y a-t-il dans "{words}" ?'),
        "reverse": ('Écris "{word}" à l\'envers.', 'Renverse le mot "{word}".', 'Épelle "{word}" depuis la fin.'),
        "quick_count": 'La lettre {letter} est {n} fois dans "{words}".',
        "quick_reverse": "À l'envers : {answer}.",
        "backwards": "À l'envers : ",
        "total": "Total {n}.",
        "so": "Donc {answer}.",
    },
}
# Counts of the letter and their weights: no constant answer wins much more than one time in four.
COUNTS = {1: ((0, 1, 2, 3, 4), (20, 24, 24, 22, 10)), 3: ((0, 1, 2, 3, 4, 5), (12, 20, 22, 22, 16, 8))}


def word_key(word: str) -> str:
    """What decides whether a word is held out: the same in every family that spells."""
    return f"spell {json.dumps({'word': word}, separators=(',', ':'))}"


class Letters(Family):
    """Level 1: a letter in a word of 5 to 7. Level 2: a word of 4 to 6 reversed. Level 3: a letter in 2 or 3 words."""

    name = "letters"
    levels = (1, 2, 3)
    structure = "each of its words, which no family then spells in training"

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        check_request(self, level, language)
        if level == 2:
            chosen = word(rng, 4, 6)
            while chosen == chosen[::-1]:  # a palindrome would reward copying
                chosen = word(rng, 4, 6)
            prompt = rng.choice(TEXT[language]["reverse"]).format(word=chosen)
            return Problem(self, level, language, prompt, chosen[::-1], {"reverse": chosen})
        if level == 1:
            count = rng.choices(*COUNTS[1])[0]
            drawn, letter = word_with_count(rng, 5, 7, count)
            return self.pose([drawn], letter, level, language, rng)
        count = rng.choices(*COUNTS[3])[0]
        while True:
            size = rng.choice((2, 3))
            first, letter = word_with_count(rng, 3, 6, rng.randint(0, min(count, 3)))
            words = [first, *(word(rng, 3, 6) for _ in range(size - 1))]
            if sum(drawn.count(letter) for drawn in words) == count:
                rng.shuffle(words)
                return self.pose(words, letter, level, language, rng)

    def pose(self, words: list[str], letter: str, level: int, language: str, rng: random.Random) -> Problem:
        """The problem of counting a letter in words, all in lower case."""
        prompt = rng.choice(TEXT[language]["count"]).format(letter=letter, words=" ".join(words))
        answer = str("".join(words).count(letter))
        return Problem(self, level, language, prompt, answer, {"words": words, "letter": letter})

    def structures(self, problem: Problem) -> Iterable[str]:
        words = problem.data["words"] if "words" in problem.data else [problem.data["reverse"]]
        return [word_key(drawn) for drawn in words]

    def verify(self, problem: Problem, answer: str) -> bool:
        if "reverse" in problem.data:
            return as_word(answer) == problem.data["reverse"][::-1]
        return as_integer(answer) == "".join(problem.data["words"]).count(problem.data["letter"])

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace:
        check_style(self, style)
        text, data = TEXT[problem.language], problem.data
        if "reverse" in data:
            quick = text["quick_reverse"].format(answer=problem.answer)
            careful = _reverse
        else:
            quick = text["quick_count"].format(letter=data["letter"], n=problem.answer, words=" ".join(data["words"]))
            careful = _count_thought
        if style == "quick":
            return Trace(quick, problem.answer)
        return Trace(phrases.opening(rng, problem.language) + careful(data, rng, problem.language), problem.answer)


def _count_thought(data: dict, rng: random.Random, language: str) -> str:
    return count_letters(data["words"], data["letter"], rng, language)


def count_letters(words: list[str], letter: str, rng: random.Random, language: str) -> str:
    """A thought with every letter and the running count; the count goes on from one word to the next."""
    total, sentences = 0, []
    slip_at = slip_position(rng, len("".join(words)))
    position = 0
    for drawn in words:
        marks = []
        for current in drawn:
            total += current == letter
            if position == slip_at:  # forgets to count, or counts a letter too many, and sees it at once
                wrong = total - 1 if current == letter else total + 1
                sentences.append(", ".join([*marks, f"{current} {wrong}"]) + ".")
                sentences.append(phrases.repair(rng, language, f"{current} {total}"))
                marks = []
            else:
                marks.append(f"{current} {total}")
            position += 1
        if marks:
            sentences.append(", ".join(marks) + ".")
    return " ".join([*sentences, TEXT[language]["total"].format(n=total)])


def _reverse(data: dict, rng: random.Random, language: str) -> str:
    """Spell, then spell from the end; a slip swaps two neighbours."""
    letters = list(data["reverse"])
    backwards = letters[::-1]
    right = ", ".join(backwards)
    text = TEXT[language]
    words = ", ".join(letters) + ". " + text["backwards"]
    slip_at = slip_position(rng, len(letters) - 1)
    swapped = backwards.copy()
    swapped[slip_at : slip_at + 2] = reversed(swapped[slip_at : slip_at + 2])
    if slip_at >= 0 and swapped != backwards:
        words += ", ".join(swapped) + ". " + phrases.repair(rng, language, right)
    else:
        words += right + "."
    return words + " " + text["so"].format(answer="".join(backwards))
