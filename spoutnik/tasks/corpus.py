"""The pretraining text: an endless mix of worked problems, drills and small talk, imperfect like the real web."""

import random
import re
from collections.abc import Iterator, Mapping

from spoutnik.tasks import FAMILIES
from spoutnik.tasks.drills import drill_document
from spoutnik.tasks.general import good_answer, sample_general
from spoutnik.tasks.problem import LANGUAGES, Family, Problem, Trace, sample

CAREFUL, QUICK, ANSWER_ONLY, DRILLS, GENERAL = "careful", "quick", "answer_only", "drills", "general"
# Like the web, the corpus states answers more often than it shows work: careful documents are few, though long.
WEIGHTS = {CAREFUL: 0.28, QUICK: 0.17, ANSWER_ONLY: 0.27, DRILLS: 0.23, GENERAL: 0.05}
FLAWED_SHARE = 0.15  # share of worked problems with a wrong answer: RL must have something to correct

LABELS = {
    "en": ("Question: {}", "Thinking: {}", "Answer: {}"),
    "fr": ("Question : {}", "Réflexion : {}", "Réponse : {}"),
}


def documents(rng: random.Random, families: Mapping[str, Family] = FAMILIES, split: str = "train") -> Iterator[str]:
    """Endless plain-text documents, without final newline. Problems and general prompts come from `split` alone."""
    if not families:
        raise ValueError("The corpus needs at least one family of problems.")
    names = sorted(families)
    while True:
        kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        language = rng.choice(LANGUAGES)
        if kind == DRILLS:
            yield drill_document(rng, language)
        elif kind == GENERAL:
            prompt = sample_general(rng, language, split)
            yield write(language, prompt.prompt, "", good_answer(prompt, rng))
        else:
            family = families[rng.choice(names)]
            yield worked_problem(family, rng, rng.choice(family.levels), language, kind, split)


def worked_problem(family: Family, rng: random.Random, level: int, language: str, kind: str, split: str) -> str:
    """A problem with its solution in the style `kind`, or with the answer only; one in seven is flawed."""
    problem = sample(family, rng, level, language, split)
    trace = family.solve(problem, rng, QUICK if kind == ANSWER_ONLY else kind)
    if rng.random() < FLAWED_SHARE:
        trace = flawed(family, problem, trace, rng)
    return write(language, problem.prompt, "" if kind == ANSWER_ONLY else trace.thought, trace.answer)


def write(language: str, prompt: str, thought: str, answer: str) -> str:
    """The plain-text form of a question, its thought (left out when empty) and its answer, one per line."""
    question, thinking, final = LABELS[language]
    lines = [question.format(prompt), thinking.format(thought) if thought else "", final.format(answer)]
    return "\n".join(line for line in lines if line)


def flawed(family: Family, problem: Problem, trace: Trace, rng: random.Random) -> Trace:
    """A solution that goes wrong: it ends with a slip that nothing repairs, or stops early and guesses."""
    answer = wrong_answer(family, problem, trace.answer, rng)
    stated = list(re.finditer(rf"(?<![\w-]){re.escape(trace.answer)}(?!\w)", trace.thought))
    if stated and rng.random() < 0.5:
        return Trace(trace.thought[: stated[-1].start()] + answer + trace.thought[stated[-1].end() :], answer)
    sentences = re.split(r"(?<=[.!?]) ", trace.thought)
    return Trace(" ".join(sentences[: len(sentences) // 2]), answer)


def wrong_answer(family: Family, problem: Problem, right: str, rng: random.Random) -> str:
    """An answer of the right kind that the verifier rejects."""
    while True:
        if re.fullmatch(r"-?\d+", right):
            wrong = _altered_number(right, rng)
        elif re.search(r" [-+*] ", right):
            wrong = _altered_expression(right, rng)
        elif "reverse" in problem.data:
            wrong = _altered_word(right, rng)
        elif "chain" in problem.data:
            wrong = rng.choice(problem.data["chain"])
        elif "names" in problem.data:
            wrong = ", ".join(sorted(rng.sample(problem.data["names"], rng.choice((1, 1, 2)))))
        else:
            wrong = family.generate(rng, problem.level, problem.language).answer
        if not family.verify(problem, wrong):
            return wrong


def _altered_number(number: str, rng: random.Random) -> str:
    """One digit of the number changed."""
    places = [place for place, character in enumerate(number) if character.isdigit()]
    place = rng.choice(places)
    return number[:place] + rng.choice("0123456789" if len(places) == 1 else "123456789") + number[place + 1 :]


def _altered_expression(expression: str, rng: random.Random) -> str:
    """One operator of the expression changed."""
    place = rng.choice([match.start() + 1 for match in re.finditer(r" [-+*] ", expression)])
    return expression[:place] + rng.choice("+-*") + expression[place + 1 :]


def _altered_word(letters: str, rng: random.Random) -> str:
    """Two neighbouring letters swapped."""
    place = rng.randrange(len(letters) - 1)
    return letters[:place] + letters[place + 1] + letters[place] + letters[place + 2 :]
