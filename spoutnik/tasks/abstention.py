"""Saying "I don't know": which answers do, and a task that rewards it."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from spoutnik.errors import UserError
from spoutnik.tasks.problem import Problem, Task, Trace

PHRASES = {  # by language; apostrophes are straight here
    "en": (r"i (?:do not|don't|really don't|honestly don't) know", r"i(?:'m| am) not (?:sure|certain)",
           r"i (?:cannot|can't|can not) (?:answer|say|tell|determine)", r"i have no idea"),
    "fr": (r"je (?:ne |n')?(?:le )?sais pas", r"je ne suis pas (?:sûre?|certaine?)",
           r"je ne peux pas (?:répondre|dire|déterminer)", r"je n'en ai aucune idée", r"aucune idée", r"je l'ignore"),
    "de": (r"ich weiß (?:es )?nicht", r"ich bin (?:mir )?nicht sicher", r"keine ahnung"),
    "es": (r"no (?:lo )?sé", r"no estoy segur[oa]", r"no tengo idea"),
    "ru": (r"я не знаю", r"не знаю", r"я не уверена?"),
    "zh": (r"我不知道", r"不知道", r"我不确定", r"无法确定"),
}
# What a prompt says where abstaining is rewarded.
INVITATIONS = {
    "en": "If you do not know the answer, say: I don't know.", "fr": "Si tu ne connais pas la réponse, dis : Je ne sais pas.",
    "de": "Wenn du die Antwort nicht weißt, sag: Ich weiß es nicht.", "es": "Si no sabes la respuesta, di: No lo sé.",
    "ru": "Если не знаешь ответа, скажи: Я не знаю.", "zh": "如果你不知道答案，请说：我不知道。",
}
_LONGEST = 200  # characters of an answer that only abstains; a long one argues, and answers in the end
_PHRASE = re.compile("|".join(phrase for phrases in PHRASES.values() for phrase in phrases), re.IGNORECASE)
_WORDS_BEFORE = 6  # "Sorry, but to be honest,"
_STATED = re.compile(r"(?:answer|réponse|antwort|respuesta|ответ|答案)\s*(?:is|est|ist|es|:|：|是)", re.IGNORECASE)
_WRAPPING = re.compile(r"\\boxed|\\text|[{}$*_`\"«»“”]")


def abstains(answer: str) -> bool:
    """Whether an answer, without its thought, says that it has none. One that states a number or "the answer is" beside it
    does not abstain, so that nobody is paid for both; nor does a long one."""
    text = _WRAPPING.sub("", answer[:4 * _LONGEST]).replace("\u2019", "'").strip()
    if len(text) > _LONGEST or (match := _PHRASE.search(text)) is None:
        return False
    before, after = text[:match.start()], text[match.end():]
    if len(re.findall(r"\w{3,}", before)) > _WORDS_BEFORE or re.search(r"\d", text):
        return False
    return not _STATED.search(after)


class Abstention(Task):
    """A task whose problems may be left unanswered: abstaining gives `reward`, a right answer what it always gives, and a wrong
    one 0. An answer that is right with a chance above `reward` is worth giving."""

    def __init__(self, task: Task, reward: float):
        """Raises UserError for a reward that abstaining cannot have."""
        if not 0 < reward < 1:
            raise UserError(f"abstention: the reward for \"I don't know\" is {reward}; it must lie between 0 (a wrong answer) "
                            "and 1 (a right one). Correct this value.")
        self._task, self.reward, self.parts = task, reward, (task, *task.parts)
        self.name, self.languages = f"{task.name}-or-abstain", task.languages
        self.about = f"{task.about}; \"I don't know\" gives {reward:g}".lstrip("; ")

    def sample(self, rng: random.Random, split: str = "train") -> Problem:
        return self._asked(self._task.sample(rng, split))

    def problems(self, split: str = "held_out") -> Sequence[Problem] | None:
        listed = self._task.problems(split)
        return None if listed is None else [self._asked(problem) for problem in listed]

    def verify(self, problem: Problem, answer: str) -> float:
        return self.reward if abstains(answer) else float(self._task.verify(self._inner(problem), answer))

    def verify_all(self, asked: Sequence[tuple[Problem, str]]) -> list[float]:
        answered = [number for number, (_, answer) in enumerate(asked) if not abstains(answer)]
        grades = [self.reward] * len(asked)
        inner = [(self._inner(asked[number][0]), asked[number][1]) for number in answered]
        for number, grade in zip(answered, self._task.verify_all(inner)):
            grades[number] = float(grade)
        return grades

    def solve(self, problem: Problem, rng: random.Random, style: str = "careful") -> Trace | None:
        return self._task.solve(self._inner(problem), rng, style)

    def as_typed(self, problem: Problem, rng: random.Random) -> Problem:
        return self._asked(self._task.as_typed(self._inner(problem), rng))

    def extract(self, problem: Problem, answer: str) -> str | None:
        """What is graded; None for one that abstains."""
        return None if abstains(answer) else self._task.extract(self._inner(problem), answer)

    def _asked(self, problem: Problem) -> Problem:
        invitation = INVITATIONS.get(problem.language, INVITATIONS["en"])
        return replace(problem, task=self, prompt=f"{problem.prompt}\n{invitation}")

    def _inner(self, problem: Problem) -> Problem:
        """The problem as its own task asks it."""
        invitation = INVITATIONS.get(problem.language, INVITATIONS["en"])
        return replace(problem, task=self._task, prompt=problem.prompt.removesuffix(f"\n{invitation}"))
