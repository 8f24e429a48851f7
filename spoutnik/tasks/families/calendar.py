"""Weekday arithmetic: reduce the number of days modulo seven, then count the weekdays one by one."""

import random
from collections.abc import Iterable

from spoutnik.tasks import phrases
from spoutnik.tasks.answers import as_word
from spoutnik.tasks.family import Family, check_request, structure_key
from spoutnik.tasks.problem import Problem, Trace, check_style
from spoutnik.tasks.steps import Step, slip_position, write_step

MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # years are never leap years here
WEEKDAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "fr": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
}
MONTHS = {
    "en": ("January", "February", "March", "April", "May", "June", "July")
    + ("August", "September", "October", "November", "December"),
    "fr": ("janvier", "février", "mars", "avril", "mai", "juin", "juillet")
    + ("août", "septembre", "octobre", "novembre", "décembre"),
}
TEXT = {
    "en": {
        "forward": ("Today is {d}. What day is it in {n} days ?", "It is {d}. Which day comes {n} days later ?"),
        "backward": ("Today is {d}. What day was it {n} days ago ?", "It is {d}. Which day was {n} days earlier ?"),
        "dates": ("{m1} {d1} is a {d}. What day is {m2} {d2} ?", "If {m1} {d1} is a {d}, which day is {m2} {d2} ?"),
        "quick_forward": "{n} days after {d} is {answer}.",
        "quick_backward": "{n} days before {d} is {answer}.",
        "quick_dates": "{m2} {d2} is a {answer}.",
        "month": "{m} has {k} days.",
        "left": "{d}: 0 left.",
    },
    "fr": {
        "forward": ("Nous sommes {d}. Quel jour serons-nous dans {n} jours ?", "C'est {d}. Quel jour vient {n} jours après ?"),
        "backward": ("Nous sommes {d}. Quel jour était-ce il y a {n} jours ?", "C'est {d}. Quel jour était {n} jours avant ?"),
        "dates": ("Le {d1} {m1} est un {d}. Quel jour est le {d2} {m2} ?",
                  "Si le {d1} {m1} est un {d}, quel jour est le {d2} {m2} ?"),
        "quick_forward": "{n} jours après {d}, c'est {answer}.",
        "quick_backward": "{n} jours avant {d}, c'est {answer}.",
        "quick_dates": "Le {d2} {m2} est un {answer}.",
        "month": "{m} a {k} jours.",
        "left": "{d} : reste 0.",
    },
}


class Calendar(Family):
    """Level 1: at most 20 days ahead. Level 2: at most 100 days, both ways. Level 3: from one date to another."""

    name = "calendar"
    levels = (1, 2, 3)
    structure = "how many days, and which way, from whatever weekday; for two dates the days between them"

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        check_request(self, level, language)
        weekday = rng.randrange(7)
        if level == 3:
            first = rng.randrange(11)
            second = min(11, first + rng.randint(1, 3))
            data = {"weekday": weekday, "from": [first, rng.randint(2, 28)], "to": [second, rng.randint(2, 28)]}
        else:
            days = rng.randint(3, 20) if level == 1 else rng.choice((-1, 1)) * rng.randint(8, 100)
            data = {"weekday": weekday, "days": days}
        prompt = rng.choice(TEXT[language][_wording(data)]).format(**_words(data, language))
        return Problem(self, level, language, prompt, _answer(data, language), data)

    def structures(self, problem: Problem) -> Iterable[str]:
        return (structure_key(self.name, {"days": _days(problem.data)}),)

    def verify(self, problem: Problem, answer: str) -> bool:
        return as_word(answer) == _answer(problem.data, problem.language).lower()

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace:
        check_style(self, style)
        if style == "quick":
            wording = "quick_" + _wording(problem.data)
            words = _words(problem.data, problem.language) | {"answer": problem.answer}
            return Trace(TEXT[problem.language][wording].format(**words), problem.answer)
        return Trace(_careful(problem, rng), problem.answer)


def _answer(data: dict, language: str) -> str:
    """The weekday after data["days"], or of the later of two dates [month from 0, day] of one year."""
    return WEEKDAYS[language][(data["weekday"] + _days(data)) % 7]


def _days(data: dict) -> int:
    """Days from the weekday that is given to the one that is asked for; negative for the past."""
    if "days" in data:
        return data["days"]
    (month, day), (last_month, last_day) = data["from"], data["to"]
    return sum(MONTH_DAYS[month:last_month]) + last_day - day


def _wording(data: dict) -> str:
    if "days" not in data:
        return "dates"
    return "forward" if data["days"] >= 0 else "backward"


def _words(data: dict, language: str) -> dict[str, str]:
    """What the wordings mention."""
    words = {"d": WEEKDAYS[language][data["weekday"]]}
    if "days" in data:
        return words | {"n": str(abs(data["days"]))}
    (month1, day1), (month2, day2) = data["from"], data["to"]
    months = MONTHS[language]
    return words | {"m1": months[month1], "d1": str(day1), "m2": months[month2], "d2": str(day2)}


def _careful(problem: Problem, rng: random.Random) -> str:
    data, language = problem.data, problem.language
    text = TEXT[language]
    pieces: list[str | Step] = []
    if "days" in data:
        days, direction = abs(data["days"]), 1 if data["days"] >= 0 else -1
    else:  # days left in the first month, whole months between, day of the last month
        (month, day), (last_month, last_day) = data["from"], data["to"]
        days, direction = MONTH_DAYS[month] - day, 1
        pieces.append(month_sentence(month, language))
        pieces.append((f"{MONTH_DAYS[month]} - {day}", days))
        for between in range(month + 1, last_month):
            pieces.append(month_sentence(between, language))
            pieces.append((f"{days} + {MONTH_DAYS[between]}", days + MONTH_DAYS[between]))
            days += MONTH_DAYS[between]
        pieces.append((f"{days} + {last_day}", days + last_day))
        days += last_day
    if days >= 70:
        pieces.append((f"{days} - 70", days - 70))
        days -= 70
    if days >= 7:
        pieces.append((f"{days} - {days // 7 * 7}", days % 7))
        days %= 7
    names = WEEKDAYS[language]
    slip_at = slip_position(rng, len(pieces))
    sentences = [piece if isinstance(piece, str) else write_step(piece, rng, language, index == slip_at)
                 for index, piece in enumerate(pieces)]
    counted = [names[data["weekday"]]]
    counted += [f"{count} {names[(data['weekday'] + direction * count) % 7]}" for count in range(1, days + 1)]
    sentences.append(", ".join(counted) + "." if days else text["left"].format(d=counted[0]))
    return phrases.opening(rng, language) + " ".join(sentences)


def month_sentence(month: int, language: str) -> str:
    """`March has 31 days.` for a month counted from 0."""
    sentence = TEXT[language]["month"].format(m=MONTHS[language][month], k=MONTH_DAYS[month])
    return sentence[0].upper() + sentence[1:]
