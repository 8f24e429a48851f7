"""Where a thought begins and ends by a model's chat template: in one prompt, and, read off the template once, in all of them.

One rule for what fine-tuning teaches, what reinforcement learning and rejection sampling sample, what evaluation reads and
where chat closes a thought.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Literal

from spoutnik.errors import RunError, UserError
from spoutnik.text.plain_thought import follows_plain_mark, opens_plain_thought
from spoutnik.text.special_token_escape import END_THINK, THINK
from spoutnik.text.thought_marks import ThoughtMarks
from spoutnik.text.tokenizer import Tokenizer

_QUESTION, _THOUGHT, _ANSWER = "question7probe", "thought7probe", "answer7probe"  # found again in what templates render
_TO_THINK = {"enable_thinking": True, "thinking": True}  # Qwen's templates read the one, DeepSeek's the other


def has_plain_marks(tokenizer: Tokenizer) -> bool:
    """Whether the marks of thoughts are plain text, if the model writes any: its vocabulary has no token for their end."""
    return tokenizer.end_think_id is None


def knows_thoughts(tokenizer: Tokenizer) -> bool:
    """Whether template, vocabulary or the model's files say how it writes a thought."""
    marks = tokenizer.marks
    return marks.stated or marks.start in (tokenizer.chat_template or "") or not has_plain_marks(tokenizer)


def opens_thought(ids: list[int], tokenizer: Tokenizer) -> bool:
    """Whether a prompt ends inside a thought. R1's template opens one; Qwen3's closes it again with thinking switched off."""
    if has_plain_marks(tokenizer):
        return opens_plain_thought(ids, tokenizer)
    for token in reversed(ids):
        if token == tokenizer.think_id:
            return True
        if token == tokenizer.end_think_id or token in tokenizer.eos_ids:
            return False
    return False


def follows_mark(ids: list[int], tokenizer: Tokenizer) -> bool:
    """Whether nothing but white space follows the last mark of thought in a prompt: what comes next begins the thought or the
    answer, and does not go on with one."""
    if has_plain_marks(tokenizer):
        return follows_plain_mark(ids, tokenizer)
    for token in reversed(ids):
        if token in (tokenizer.think_id, tokenizer.end_think_id):
            return True
        if tokenizer.decode([token], keep_special=True).strip():
            return False
    return False


@dataclass(frozen=True)
class ThoughtFormat:
    """How a model writes a reply, by its chat template.

    opened_by: "prompt": the generation prompt ends inside a thought, where completions begin (R1). "model": it writes `<think>`
        itself (Qwen3). "nobody": neither template nor vocabulary knows thoughts (ChatML); a model that is taught some
        writes the marks, as text.
    opening, closing: what stands before a thought, and between it and the answer. no_thought: what stands before an answer
        without one. ending: white space between the answer and the end of its turn.
    end_id: the end of the assistant's turn. end_ids: everything that ends a completion, the tokenizer's ends of sentence and
        end_id.
    variables: what the template is rendered with so that the model may think: nothing, unless its prompts otherwise close the
        thought before it has begun (DeepSeek-V3.1).
    """

    opened_by: Literal["prompt", "model", "nobody"] = "nobody"
    opening: str = f"{THINK}\n"
    closing: str = f"\n{END_THINK}\n\n"
    no_thought: str = ""
    ending: str = ""
    end_id: int = -1
    end_ids: tuple[int, ...] = ()
    variables: Mapping[str, object] = field(default_factory=dict)

    def closing_ids(self, tokenizer: Tokenizer) -> list[int]:
        return tokenizer.encode_rendered(self.closing, continues=True)

    def completion_ids(self, thought: str, answer: str, tokenizer: Tokenizer) -> list[int]:
        """What the assistant writes after the generation prompt: the target of fine-tuning. Thought and answer are encoded by
        themselves, so that they spell no mark and have the same ids wherever they stand."""
        thought, rendered = thought.strip(), partial(tokenizer.encode_rendered, continues=True)
        before = [*rendered(self.opening), *tokenizer.encode(thought, continues=True), *self.closing_ids(tokenizer)]
        return [*(before if thought else rendered(self.no_thought)), *tokenizer.encode(answer, continues=True),
                *rendered(self.ending), self.end_id]


@lru_cache(maxsize=16)
def thought_format(tokenizer: Tokenizer) -> ThoughtFormat:
    """The format of a tokenizer's chat template; of a base model, which has no template, the one that knows no thoughts."""
    marks, opened_by = tokenizer.marks, "model" if knows_thoughts(tokenizer) else "nobody"
    written = {"opening": f"{marks.start}\n", "closing": f"\n{marks.end}\n\n"}
    ends = {"end_id": tokenizer.eos_id, "end_ids": tuple(tokenizer.eos_ids)}
    variables = {}
    try:
        prompt = tokenizer.render(_messages())
        if _closes_thought(prompt, marks) and not _closes_thought(tokenizer.render(_messages(), variables=_TO_THINK), marks):
            variables = _TO_THINK
            prompt = tokenizer.render(_messages(), variables=variables)
        opened = opens_thought(tokenizer.chat_ids(_messages(), variables=variables), tokenizer)
    except (UserError, RunError):  # no template, or one that wants more than a question
        return ThoughtFormat(opened_by, **written, **ends)
    answered = _rendered(tokenizer, variables, {"content": _ANSWER})
    ends = _end_of_turn(answered, tokenizer)
    form = _prompts_format(prompt, marks) if opened else ThoughtFormat(opened_by, **written)
    form = ThoughtFormat(form.opened_by, form.opening, form.closing, form.no_thought, variables=variables, **ends)
    return _as_rendered(form, marks, prompt, answered, _rendered(tokenizer, variables, {
        "content": _ANSWER, "reasoning_content": _THOUGHT}))


def _messages(**reply: str) -> list[dict]:
    return [{"role": "user", "content": _QUESTION}, *([{"role": "assistant", **reply}] if reply else [])]


def _rendered(tokenizer: Tokenizer, variables: Mapping[str, object], reply: Mapping[str, str]) -> str:
    """A question with its reply; "" where the template refuses it."""
    try:
        return tokenizer.render(_messages(**reply), add_generation_prompt=False, variables=variables)
    except (UserError, RunError):
        return ""


def _closes_thought(prompt: str, marks: ThoughtMarks) -> bool:
    """Whether a prompt leaves no place for a thought: the last mark after the question is the end of one."""
    tail = prompt.rpartition(_QUESTION)[2]
    return tail.rfind(marks.end) > tail.rfind(marks.start)


def _prompts_format(prompt: str, marks: ThoughtMarks) -> ThoughtFormat:
    """The format of a prompt that opens a thought: a mark on a line of its own, or marks that touch what they enclose."""
    lines = "\n" in prompt.rpartition(marks.start)[2]
    closing = f"\n{marks.end}\n\n" if lines else marks.end
    return ThoughtFormat("prompt", "", closing, closing)


def _end_of_turn(rendered: str, tokenizer: Tokenizer) -> dict:
    """What the template puts after the assistant's answer: the special token there, if there is one, ends its turn."""
    after = rendered.rpartition(_ANSWER)[2] if _ANSWER in rendered else ""
    text = after.lstrip()
    if tokenizer.marks.answer and text.startswith(tokenizer.marks.answer[1]):
        text = text.removeprefix(tokenizer.marks.answer[1]).lstrip()
    added = {token.content: token_id for token_id, token in tokenizer.bpe.get_added_tokens_decoder().items()}
    token = max((content for content in added if len(content) > 1 and text.startswith(content)), key=len, default=None)
    if token is None or token in tokenizer.marks.pair or added[token] == tokenizer.bos_id != tokenizer.eos_id:
        return {"end_id": tokenizer.eos_id, "end_ids": tuple(tokenizer.eos_ids)}
    return {"ending": after[:len(after) - len(text)], "end_id": added[token],
            "end_ids": tuple(dict.fromkeys([*tokenizer.eos_ids, added[token]]))}


def _as_rendered(form: ThoughtFormat, marks: ThoughtMarks, prompt: str, answered: str, reasoned: str) -> ThoughtFormat:
    """The format with the marks as the template itself writes them, where it renders the reply that follows its own prompt
    (R1's drops thoughts, ChatML knows none)."""
    changes = {}
    match = re.fullmatch(f"(.*?){_THOUGHT}(.*?){_ANSWER}.*", reasoned.removeprefix(prompt), re.DOTALL)
    opened = form.opened_by == "prompt"
    if reasoned.startswith(prompt) and match and marks.end in match[2] and match[1].strip() == ("" if opened else marks.start):
        changes = {"opening": match[1], "closing": match[2]}
        if opened:
            changes["no_thought"] = match[2]
    before = answered.removeprefix(prompt).partition(_ANSWER)[0]
    written = "".join(before.split()).removesuffix(marks.answer[0] if marks.answer else "")
    empty = (marks.end,) if opened else ("", marks.start + marks.end)
    if answered.startswith(prompt) and _ANSWER in answered and written in empty:
        changes["no_thought"] = before
    return ThoughtFormat(**vars(form) | changes)
