"""Prompts in the styles that a recipe can train and evaluate in, as token ids, and their completions, read back.

One rule for rollouts, validation, rejection sampling and evaluation. A completion ends at the model's end of sentence, whatever
the style: a text that should end it is something that a policy can learn.
"""

from collections.abc import Sequence
from typing import Literal

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.tasks import Problem
from spoutnik.tasks.general import GeneralPrompt
from spoutnik.tasks.problem import History
from spoutnik.tasks.prompt_styles import style_of
from spoutnik.text.chat_template import Message
from spoutnik.text.thought import Reply, read_reply
from spoutnik.text.thought_format import thought_format
from spoutnik.text.tokenizer import Tokenizer

# A conversation; or, for a model that knows none, plain text: layouts of our pretraining text, or the paper's template.
PromptStyle = Literal["chat", "forum", "textbook", "r1-zero"]


def conversation_ids(history: History, prompt: str, tokenizer: Tokenizer) -> list[int]:
    """A conversation up to where its next reply begins, by the tokenizer's chat template, as in chat."""
    turns = [{"role": role, "content": text}
             for question, answer in history for role, text in (("user", question), ("assistant", answer))]
    return message_ids([*turns, {"role": "user", "content": prompt}], tokenizer)


def message_ids(messages: Sequence[Message], tokenizer: Tokenizer, tools: Sequence[dict] | None = None) -> list[int]:
    """`conversation_ids` of messages of any role, with the tools that can be called.

    Raises:
        TemplateRefusal: the template does not take them.
    """
    return tokenizer.chat_ids(messages, tools, variables=thought_format(tokenizer).variables)


def prompt_ids(questions: Sequence[Problem | GeneralPrompt], tokenizer: Tokenizer,
               style: PromptStyle = "chat") -> list[list[int]]:
    """Up to where the reply begins. Plain text has no place for earlier turns: such questions are of the style chat."""
    if style == "chat":
        return [conversation_ids(question.history, question.prompt, tokenizer) for question in questions]
    texts = [style_of(style).prompt(question).text for question in questions]
    return [[*tokenizer.start_ids, *tokenizer.encode(text)] for text in texts]


def read_completion(completion: CompletionOutput, tokenizer: Tokenizer, style: PromptStyle = "chat") -> Reply:
    """Thought and answer of a completion, as its style marks them."""
    ids, finished = completion.reply_ids, completion.finished
    return read_reply(ids, tokenizer, finished) if style == "chat" else read_plain(ids, tokenizer, finished, style)


def read_plain(ids: list[int], tokenizer: Tokenizer, finished: bool, style: PromptStyle) -> Reply:
    """The reply of a model that was given plain text. R1-Zero's marks count whether they are tokens or spelled."""
    read = style_of(style).read(tokenizer.decode(ids, keep_special=style == "r1-zero"), finished)
    return Reply(read.thought, read.answer, read.well_formed, len(tokenizer.encode(read.thought)) if read.answer else len(ids))
