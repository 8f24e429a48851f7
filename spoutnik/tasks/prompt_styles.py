"""How a problem is put to a model, and how its reply is read: a conversation, or plain text for base models, which know no
conversations. One rule for rollouts, validation and evaluation.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from spoutnik.errors import UserError
from spoutnik.tasks.corpus import BOOK, FORUM, Layout
from spoutnik.tasks.problem import Problem
from spoutnik.text.chat_template import Message
from spoutnik.text.r1_zero import r1_zero_prompt
from spoutnik.text.special_token_escape import END_THINK, THINK


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


def _turns(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [turn for question, answer in pairs for turn in (("user", question), ("assistant", answer))]
