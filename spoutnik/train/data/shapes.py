"""The shapes of rows that people have, recognized from their keys, and what a row of each becomes.

A trace is {"prompt", "thought", "answer"}, with "messages" where more than a question stands before the reply, and "tools". Of
preferences the pair becomes {"prompt", ..., "chosen": {"thought", "answer"}, "rejected": {...}}, and a thumb a trace with
"label".
"""

from collections.abc import Mapping
from functools import lru_cache, partial

from spoutnik.files import check_row, check_text
from spoutnik.train.data.conversations import (
    Drop,
    Learn,
    chat_messages,
    context_of,
    conversation_traces,
    is_conversation,
    not_to_learn,
    tool_list,
    trace_of,
)
from spoutnik.train.data.preference_shapes import LABELS, PREFERENCE_KEYS, label_in, labeled_shape, preference_shape
from spoutnik.train.data.row_shape import (
    COMMON,
    QUESTIONS,
    SYSTEM,
    Shape,
    checked_history,
    context_at,
    instruction_context,
    message_traces,
    one_of,
    reply_text,
    system_of,
    unclear,
)
from spoutnik.train.data.thought_text import split_final, split_thought

TRACE = ("prompt", "thought", "answer")
_REPLIES = ("answer", "response", "completion", "output", "solution")
_THOUGHTS = ("thought", "reasoning", "reasoning_content", "thinking", "complex_cot", "cot", "chain_of_thought")
# Every key that a shape reads: what `columns` may name.
KNOWN_KEYS = (*QUESTIONS, *_REPLIES, *_THOUGHTS, "messages", "conversations", "conversation", "instruction", "context",
              "generations", "correctness_math_verify", *PREFERENCE_KEYS, *COMMON)


@lru_cache(maxsize=1024)
def shape_of(keys: frozenset[str]) -> Shape:
    """The shape of rows with these keys.

    Raises:
        ValueError: none has them, or it is unclear which of them is which.
    """
    def has(*names: str) -> bool:
        return keys.issuperset(names)

    if has(*TRACE) and not keys & LABELS:
        return Shape("prompt/thought/answer", TRACE, COMMON, _trace)
    if preferences := preference_shape(keys):
        return preferences
    if label := label_in(keys):
        return labeled_shape(shape_of(keys - LABELS), label)
    if has("generations", "correctness_math_verify"):
        return Shape("open-r1 (generations with correctness_math_verify)", ("generations", "correctness_math_verify"),
                     ("messages", "problem", "prompt", *COMMON), _generations)
    for key, name in (("messages", "messages"), ("conversations", "conversations (ShareGPT)"),
                      ("conversation", "conversation")):
        if has(key):
            return Shape(name, (key,), (*SYSTEM, "tools"), partial(_conversation, key))
    if has("instruction"):
        reply = one_of(keys, ("output", "response", "completion", "answer"), "reply")
        return Shape(f"instruction/input/{reply} (Alpaca)", ("instruction", reply), ("input", "context", *COMMON),
                     partial(_instruction, reply))
    try:
        return _question_and_reply(keys)
    except ValueError as error:
        if not has("generations"):
            raise
        raise ValueError("its generations have no correctness_math_verify, which says of each whether it is right. Name the "
                         "key that does (columns: {generations: generations, correctness_math_verify: ..., problem: problem}), "
                         "or question and reply: columns: {prompt: ..., answer: ...}.") from error


def _question_and_reply(keys: frozenset[str]) -> Shape:
    question, reply = one_of(keys, QUESTIONS, "question"), one_of(keys, _REPLIES, "reply")
    thoughts = [name for name in _THOUGHTS if name in keys]
    if len(thoughts) > 1:
        raise ValueError(unclear(thoughts, "thought"))
    names = (question, *thoughts, reply)
    return Shape("/".join(names), names, COMMON, partial(_answer, question, *(thoughts or [None]), reply))


def _trace(row: Mapping, learn: Learn) -> list[dict | Drop]:
    """A trace as this package writes them passes as it is, with all its keys but one that would be taken for its context."""
    row = {**row, "answer": reply_text(row, "answer")}
    check_row(row, TRACE, texts=True)
    checked_history(row)
    kept = {key: value for key, value in row.items() if key not in ("messages", "tools")}
    if (system := system_of(row)) or tool_list(row):
        return [kept | trace_of([*system, *context_of(kept)], row["thought"], row["answer"], tool_list(row))]
    return [kept]


def _answer(question: str, thought: str | None, reply: str, row: Mapping, learn: Learn) -> list[dict | Drop]:
    context = context_at(row, question)
    if is_conversation(row[reply]):
        return message_traces(context, row, reply)
    text = reply_text(row, reply)
    if thought is not None and row[thought] is not None:
        check_text(thought, row[thought])
        return [trace_of(context, row[thought], text, tool_list(row))]
    return [trace_of(context, *split_final(text), tool_list(row))]


def _instruction(reply: str, row: Mapping, learn: Learn) -> list[dict | Drop]:
    context = instruction_context(row)
    if is_conversation(row[reply]):
        return message_traces(context, row, reply)
    return [trace_of(context, *split_thought(reply_text(row, reply)), tool_list(row))]


def _conversation(key: str, row: Mapping, learn: Learn) -> list[dict | Drop]:
    messages, unlearned = chat_messages(key, row[key]), not_to_learn(key, row[key])
    if messages[0]["role"] != "system":
        before = system_of(row)
        messages, unlearned = [*before, *messages], {len(before) + number for number in unlearned}
    return conversation_traces(messages, tool_list(row), learn, unlearned)


def _generations(row: Mapping, learn: Learn) -> list[dict | Drop]:
    """The generations that math-verify found right. The question is the user's message, which holds the prompt that was used,
    else the problem."""
    generations, right = row["generations"], row["correctness_math_verify"]
    if not isinstance(generations, list):
        raise ValueError("'generations' must be a list of texts. Correct it.")
    right = right or [False] * len(generations)  # never checked: none is known to be right
    if not isinstance(right, list) or len(right) != len(generations):
        raise ValueError("'correctness_math_verify' must have a value for each of the generations. Correct it.")
    context = system_of(row)
    if row.get("messages"):
        messages = chat_messages("messages", row["messages"])
        last = max((number for number, message in enumerate(messages) if message["role"] == "user"), default=-1)
        context = messages[:last + 1]
    else:
        key = next((key for key in ("prompt", "problem", "question") if key in row), None)
        if key is None:
            raise ValueError("there is no question: neither messages nor problem. Add one of them.")
        context = context_at(row, key)
    for text in generations:
        check_text("generations", text)
    return [trace_of(context, *split_thought(text)) if is_right is True else "incorrect"
            for text, is_right in zip(generations, right)]
