"""How a problem is put to a model: a conversation, or plain text for base models, which know no conversations.

R1's protocol (R1 section 3, appendix D.1) is the style "chat" without a system prompt and without examples, at temperature 0.6
and top-p 0.95. The thought is stripped before the answer is graded.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from spoutnik.errors import UserError
from spoutnik.tasks import Problem
from spoutnik.tasks.corpus import BOOK, FORUM, Layout
from spoutnik.tasks.grading import accuracy_reward
from spoutnik.text.chat_template import Message
from spoutnik.text.r1_zero import r1_zero_prompt
from spoutnik.text.special_token_escape import END_THINK, THINK
from spoutnik.train.settings import Settings

LONGEST_REPLY = 32_768  # tokens: R1's limit


class AskingSettings(Settings):
    """How replies are sampled. R1's values."""

    samples: int = Field(default=4, gt=0, le=16384)
    """Replies to each problem (k); pass@1 is their mean. R1 took 64 for AIME and GPQA, 16 for MATH, 8 for LiveCodeBench."""
    temperature: float = Field(default=0.6, ge=0, le=2)
    """Of sampling; 0 is greedy."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """The share of the probability to sample from."""
    max_tokens: int | None = Field(default=None, gt=1)
    """The longest reply, thought included. None is R1's 32,768. A local model's positions bound it, prompt by prompt."""
    seed: int = Field(default=0, ge=0)
    """Of sampling, together with the problem and the sample's number."""


@dataclass(frozen=True)
class Prompt:
    """What a model is given. messages: a conversation; None where the style has none. text: plain text to go on with, in whose
    place the conversation is taken where it is None. stop: texts that end the reply to it; keep_stop: and are read with it."""

    messages: tuple[tuple[str, str], ...] | None
    text: str | None = None
    stop: tuple[str, ...] = ()
    keep_stop: bool = False

    def conversation(self) -> list[Message]:
        """The messages as chat templates and endpoints take them."""
        return [{"role": role, "content": content} for role, content in self.messages]


@dataclass(frozen=True)
class ReadReply:
    """A reply in its parts. well_formed: it ended by itself, what the style wants around an answer is there, and an answer."""

    thought: str
    answer: str
    well_formed: bool


class Style(Protocol):
    """A way to ask. Of a conversation the model's own format tells thought from answer; `read` is for plain text."""

    name: str

    def prompt(self, problem: Problem) -> Prompt: ...

    def read(self, text: str, finished: bool) -> ReadReply: ...


class Chat:
    """A conversation by the model's own chat template."""

    name = "chat"

    def prompt(self, problem: Problem) -> Prompt:
        return Prompt((*_turns(problem.history), ("user", problem.prompt)))

    def read(self, text: str, finished: bool) -> ReadReply:
        thought, mark, answer = text.rpartition(END_THINK)
        opened = thought.lstrip().startswith(THINK) or not mark and answer.lstrip().startswith(THINK)
        if opened and not mark:
            return ReadReply(answer.lstrip().removeprefix(THINK).strip(), "", False)
        thought = thought.lstrip().removeprefix(THINK).strip()
        closed_once = THINK not in thought + answer and END_THINK not in thought
        return ReadReply(thought, answer.strip(), finished and closed_once and bool(answer.strip()))


@dataclass(frozen=True)
class Page:
    """A layout of our pretraining text, by language: a line with the problem; the base goes on with a thought and an answer."""

    name: str
    layouts: Mapping[str, Layout]

    def prompt(self, problem: Problem) -> Prompt:
        layout = self.layouts.get(problem.language, self.layouts["en"])
        stop = tuple(dict.fromkeys("\n" + each.problem.removesuffix("{}").strip() for each in self.layouts.values()))
        return Prompt(None, layout.problem.format(problem.prompt) + "\n", stop)

    def read(self, text: str, finished: bool) -> ReadReply:
        """An optional line of thought and one with the answer, in any of the languages."""
        text = text.strip()
        for layout in self.layouts.values():
            thought, answer = (re.escape(part.removesuffix("{}").strip()) for part in (layout.thought, layout.answer))
            match = re.fullmatch(f"(?:{thought} (?P<thought>.*)\n)?{answer} (?P<answer>.*)", text, re.DOTALL)
            if match is not None:
                stated = match["answer"].strip()
                return ReadReply(match["thought"] or "", stated, finished and bool(stated))
        return ReadReply(text, "", False)


@dataclass(frozen=True)
class FewShot:
    """Examples with their answers, then the problem: plain text, or the earlier turns of a conversation with an endpoint."""

    examples: tuple[tuple[str, str], ...]
    name: str = "few-shot"

    def prompt(self, problem: Problem) -> Prompt:
        shown = "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in self.examples)
        messages = (*_turns(self.examples), ("user", problem.prompt))
        return Prompt(messages, f"{shown}Question: {problem.prompt}\nAnswer:", ("\nQuestion:",))

    def read(self, text: str, finished: bool) -> ReadReply:
        return ReadReply("", text.strip(), finished and bool(text.strip()))


class R1Zero:
    """The template that R1-Zero was trained with."""

    name = "r1-zero"

    def prompt(self, problem: Problem) -> Prompt:
        return Prompt(None, r1_zero_prompt(problem.prompt), ("</answer>", "\nUser:"), True)

    def read(self, text: str, finished: bool) -> ReadReply:
        match = re.fullmatch(f"\\s*{THINK}(.*?){END_THINK}\\s*<answer>(.*?)</answer>\\s*", text, re.DOTALL)
        if match is None or THINK in match[1] or "<answer>" in match[2]:
            return ReadReply(text.strip(), "", False)
        return ReadReply(match[1].strip(), match[2].strip(), finished and bool(match[2].strip()))


STYLES = ("chat", "forum", "textbook", "few-shot", "r1-zero")


def style_of(name: str, examples: Sequence[tuple[str, str]] = ()) -> Style:
    """The style of a name. examples: of few-shot, (question, answer).

    Raises:
        UserError: there is none of that name.
    """
    match name:
        case "chat":
            return Chat()
        case "forum":
            return Page("forum", FORUM)
        case "textbook":
            return Page("textbook", BOOK)
        case "few-shot":
            return FewShot(tuple(examples))
        case "r1-zero":
            return R1Zero()
    raise UserError(f"--style {name}: unknown. Choose among {', '.join(STYLES)}.")


def worked_examples(problems: Sequence[Problem], count: int) -> list[tuple[str, str]]:
    """(question, answer) of the first `count` problems whose gold answer passes their own verifier, bare, boxed or after
    "Answer:", as the task wants it. Fewer where not so many do."""
    examples = []
    for problem in problems:
        if len(examples) == count:
            break
        gold = problem.answer
        forms = (gold, f"\\boxed{{{gold}}}", f"Answer: {gold}", f"ANSWER: {gold}")
        passing = next((form for form in forms if gold and accuracy_reward(problem, form) == 1.0), None)
        if passing is not None:
            examples.append((problem.prompt, passing))
    return examples


def _turns(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [turn for question, answer in pairs for turn in (("user", question), ("assistant", answer))]
