"""Truth-tellers and liars: suppose, derive, meet a contradiction or not, then check every statement.

A statement is a list whose meaning does not depend on its speaker:
["is", j, honest], ["same", j, k, same] or ["count", m] ("exactly m of us lie"). Persons are indices.
The key keeps the names: a puzzle with other names may be in the other split, unless whole structures are held out.
"""

import itertools
import random
import re
from collections.abc import Iterable, Sequence

from spoutnik.tasks import phrases
from spoutnik.tasks.answers import clean
from spoutnik.tasks.family import Family, check_request, structure_key
from spoutnik.tasks.names import NAMES
from spoutnik.tasks.problem import Problem, Trace, check_style

TEXT = {
    "en": {
        "rule": ("Each one always lies or always tells the truth.", "Everyone here is honest or a liar."),
        "says": "{a} says: {s}.",
        "question": "Who tells the truth ?",
        "is": ("{j} lies", "{j} is honest"),
        "same": ("{j} and {k} are different", "{j} and {k} are alike"),
        "count": ("none of us lies", "exactly one of us lies", "exactly two of us lie", "exactly three of us lie"),
        "suppose": "Suppose {j} is honest.",
        "otherwise": "So {j} lies.",
        "so": "{a} says {s}, so {what}.",
        "contradiction": "{a} says {s}: contradiction.",
        "checked": ("{a} false", "{a} true"),
        "nobody": "nobody",
        "quick": "{who}: honest.",
        "quick_nobody": "All lie.",
    },
    "fr": {
        "rule": ("Chacun ment toujours ou dit toujours la vérité.", "Ici chacun est sincère ou menteur."),
        "says": "{a} dit : {s}.",
        "question": "Qui dit la vérité ?",
        "is": ("{j} ment", "{j} est sincère"),
        "same": ("{j} et {k} sont différents", "{j} et {k} sont pareils"),
        "count": ("aucun de nous ne ment", "un seul de nous ment", "deux de nous mentent", "nous mentons tous les trois"),
        "suppose": "Supposons : {j} est sincère.",
        "otherwise": "Donc {j} ment.",
        "so": "{a} dit {s}, donc {what}.",
        "contradiction": "{a} dit {s} : contradiction.",
        "checked": ("{a} faux", "{a} vrai"),
        "nobody": "personne",
        "quick": "{who} : sincère.",
        "quick_nobody": "Tous mentent.",
    },
}
MAX_ANSWER = 80  # characters; three names and their conjunctions are far shorter
NOBODY = ("nobody", "no one", "none", "personne")
Kinds = dict[int, bool]  # person: honest


def holds(statement: list, kinds: Kinds) -> bool:
    """Whether a statement is true when the kinds of all persons are known."""
    match statement:
        case ["is", j, honest]:
            return kinds[j] == honest
        case ["same", j, k, same]:
            return (kinds[j] == kinds[k]) == same
        case ["count", m]:
            return sum(not honest for honest in kinds.values()) == m
    raise ValueError(f"Unknown statement {statement!r}: a statement is an is, a same or a count.")


def _reordered(statements: list[list], order: Sequence[int]) -> list[list]:
    """The same puzzle with person i at place order[i]."""
    moved: list[list] = [[]] * len(statements)
    for speaker, statement in enumerate(statements):
        match statement:
            case ["is", j, honest]:
                statement = ["is", order[j], honest]
            case ["same", j, k, same]:
                statement = ["same", *sorted((order[j], order[k])), same]
        moved[order[speaker]] = statement
    return moved


def completions(kinds: Kinds, count: int) -> list[Kinds]:
    """All the ways to complete what is known about `count` persons."""
    choices = [[kinds[i]] if i in kinds else [True, False] for i in range(count)]
    return [dict(enumerate(values)) for values in itertools.product(*choices)]


def solutions(statements: list[list]) -> list[Kinds]:
    """The assignments in which exactly the honest speakers say something true."""
    every = completions({}, len(statements))
    return [kinds for kinds in every if all(holds(s, kinds) == kinds[i] for i, s in enumerate(statements))]


class Liars(Family):
    """Level 1: two persons. Level 2: three, one compound statement. Level 3: three, all statements compound."""

    name = "liars"
    levels = (1, 2, 3)
    structure = "who says what of whom, whatever the names and the order of the persons"

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        check_request(self, level, language)
        count = 2 if level == 1 else 3
        solution = dict(enumerate(rng.choice((True, False)) for _ in range(count)))  # uniform: no favourite answer
        while True:
            plain = {1: rng.randint(0, 1), 2: 2, 3: 0}[level]
            compound = [index >= plain for index in range(count)]
            rng.shuffle(compound)
            statements = [_draw(rng, i, count, compound[i], solution) for i in range(count)]
            if solutions(statements) == [solution]:
                break
        names = rng.sample(NAMES, count)
        text = TEXT[language]
        spoken = [text["says"].format(a=names[i], s=_words(s, names, language)) for i, s in enumerate(statements)]
        prompt = " ".join([rng.choice(text["rule"]), *spoken, text["question"]])
        data = {"names": names, "statements": statements}
        return Problem(self, level, language, prompt, _answer(names, solution, language), data)

    def structures(self, problem: Problem) -> Iterable[str]:
        """Of all orders of the persons, the first in alphabetical order."""
        statements = problem.data["statements"]
        orders = itertools.permutations(range(len(statements)))
        return (min(structure_key(self.name, _reordered(statements, order)) for order in orders),)

    def verify(self, problem: Problem, answer: str) -> bool:
        kinds = solutions(problem.data["statements"])[0]
        honest = sorted(name.lower() for i, name in enumerate(problem.data["names"]) if kinds[i])
        answer = clean(answer).lower()
        if len(answer) > MAX_ANSWER:
            return False
        if not honest:
            return answer in NOBODY
        return sorted(re.split(r"\s*,\s*(?:and |et )?|\s+and\s+|\s+et\s+", answer)) == honest

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace:
        check_style(self, style)
        names, statements, language = problem.data["names"], problem.data["statements"], problem.language
        kinds, text = solutions(statements)[0], TEXT[language]
        answer = _answer(names, kinds, language)
        if style == "quick":
            return Trace(text["quick"].format(who=answer) if any(kinds.values()) else text["quick_nobody"], answer)
        sentences: list[str] = []
        _explore({}, names, statements, sentences, rng, language)
        checked = ", ".join(text["checked"][kinds[i]].format(a=name) for i, name in enumerate(names))
        sentences.append(phrases.check(rng, language, checked))
        return Trace(phrases.opening(rng, language) + " ".join(sentences), answer)


def _draw(rng: random.Random, speaker: int, count: int, compound: bool, solution: Kinds) -> list:
    """A random statement that is true exactly when its speaker is to be honest."""
    others = [i for i in range(count) if i != speaker]
    while True:
        if not compound:
            statement = ["is", rng.choice(others), rng.random() < 0.4]
        elif rng.random() < 0.5:
            statement = ["same", *sorted(rng.sample(range(count), 2)), rng.random() < 0.5]
        else:
            statement = ["count", rng.randint(0 if count == 2 else 1, count)]
        if holds(statement, solution) == solution[speaker]:
            return statement


def _answer(names: list[str], kinds: Kinds, language: str) -> str:
    honest = sorted(name for i, name in enumerate(names) if kinds[i])
    return ", ".join(honest) or TEXT[language]["nobody"]


def _words(statement: list, names: list[str], language: str) -> str:
    """A statement in the language."""
    text = TEXT[language]
    match statement:
        case ["is", j, honest]:
            return text["is"][honest].format(j=names[j])
        case ["same", j, k, same]:
            return text["same"][same].format(j=names[j], k=names[k])
    return text["count"][statement[1]]


def _explore(kinds: Kinds, names: list[str], statements: list[list], sentences: list[str], rng: random.Random,
             language: str) -> bool:
    """Derive what follows from `kinds`, suppose when nothing does; writes `sentences`, False on a contradiction."""
    text = TEXT[language]
    if kinds and not _derive(kinds, names, statements, sentences, language):
        return False
    unknown = [i for i in range(len(names)) if i not in kinds]
    if not unknown:
        return True
    name = names[unknown[0]]
    sentences.append(text["suppose"].format(j=name))
    if _explore(kinds | {unknown[0]: True}, names, statements, sentences, rng, language):
        return True
    sentences.append(f"{phrases.wait(language)} {text['otherwise'].format(j=name)}")
    return _explore(kinds | {unknown[0]: False}, names, statements, sentences, rng, language)


def _derive(kinds: Kinds, names: list[str], statements: list[list], sentences: list[str], language: str) -> bool:
    """Apply the statements one by one, again and again, until none adds anything; False on a contradiction."""
    text, progress = TEXT[language], True
    while progress:
        progress = False
        for speaker, statement in enumerate(statements):
            possible = [k for k in completions(kinds, len(names)) if holds(statement, k) == k[speaker]]
            fields = {"a": names[speaker], "s": _words(statement, names, language)}
            if not possible:
                sentences.append(text["contradiction"].format(**fields))
                return False
            forced = [i for i in range(len(names)) if i not in kinds and len({k[i] for k in possible}) == 1]
            if forced:
                kinds |= {i: possible[0][i] for i in forced}
                what = ", ".join(text["is"][kinds[i]].format(j=names[i]) for i in forced)
                sentences.append(text["so"].format(what=what, **fields))
                progress = True
    return True
