"""What the tests of evaluation ask: a task of sums, a model that answers as it is told, a model's folder."""

import re
from pathlib import Path

import tiny

from spoutnik.evals.asking import AskingSettings
from spoutnik.evals.benches import Bench
from spoutnik.evals.samples import ModelReply
from spoutnik.model.weights import save_model
from spoutnik.tasks import Problem, Task


class Sums(Task):
    """Additions. An answer "crash" makes the verifier fail."""

    name = "sums"

    def problem(self, left: int, right: int) -> Problem:
        return Problem(self, 1, "en", f"What is {left} + {right}?", str(left + right), {"stratum": "small"})

    def verify(self, problem: Problem, answer: str) -> float:
        if answer == "crash":
            raise ZeroDivisionError("no such luck")
        return answer == problem.answer


SUMS = Sums()


def sums(count: int) -> Bench:
    return Bench("sums", [SUMS.problem(number, 2) for number in range(count)], "every sum")


class Scripted:
    """Answers each question by `answer(prompt's last text, seed)`; says what it was asked. stop_after: replies before it is
    interrupted."""

    name, batch = "scripted", 2

    def __init__(self, answer=lambda text, seed: right(text), stop_after: int | None = None, facts: str = "first"):
        self.answer, self.stop_after, self.asked, self._facts = answer, stop_after, [], facts

    def facts(self):
        return {"content": self._facts}

    def check(self, style, chosen):
        return None

    def rendered(self, prompt):
        return prompt.text or str(prompt.messages)

    def limit(self, settings):
        return settings.max_tokens or 100

    def ask(self, questions, style, settings, on_reply, on_tokens):
        for number, question in reversed(list(enumerate(questions))):  # replies come in no order
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            text = question.prompt.text or question.prompt.messages[-1][1]
            self.asked.append((text, question.seed))
            on_tokens(3)
            answer = self.answer(text, question.seed)
            on_reply(number, answer if isinstance(answer, ModelReply) else ModelReply("so", answer, True, bool(answer), 3, 1))


def right(text: str) -> str:
    """The answer to the last sum in a text."""
    left, other = re.findall(r"(\d+) \+ (\d+)", text)[-1]
    return str(int(left) + int(other))


def settings(**changes) -> AskingSettings:
    return AskingSettings(**{"samples": 2} | changes)


def model_folder(folder: Path, **changes) -> Path:
    """A tiny model with random weights and a chat template."""
    folder.mkdir(parents=True)
    save_model(folder, tiny.model(tiny.LLAMA, vocab_size=300, **changes))
    tiny.tokenizer().save(folder)
    return folder
