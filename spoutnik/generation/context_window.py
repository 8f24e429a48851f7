"""Conversations longer than a model's context: the oldest questions are left out, with their answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.engine.llm import LLM
from spoutnik.generation.options import ContextOverflow, GenerationOptions, GenerationPlan, plan_chat
from spoutnik.text.chat_template import Message

LEAST_REPLY = 1 / 4  # of the context, where earlier questions can be left out for it
MAX_LEAST_REPLY = 4096  # tokens
MAX_PROMPT = 1 / 2  # of the context, where questions are left out: so that not each turn leaves out one more


@dataclass(frozen=True)
class WindowPlan:
    """plan: of the next reply. messages: those that the model reads. left_out: so many questions are not among them."""

    plan: GenerationPlan
    messages: list[Message]
    left_out: int


def plan_within_window(llm: LLM, messages: Sequence[Message], options: GenerationOptions, left_out: int = 0) -> WindowPlan:
    """`plan_chat` for the end of a conversation that fits.

    System messages at the beginning and the last question always stay. A conversation that leaves too little room for a reply
    loses its oldest questions until half of the context is free; then its beginning stays the same for some turns, and the
    cached prompt can be used.

    Args:
        left_out: questions that were left out of the previous turn, with the same model.
    Raises:
        ContextOverflow: the last question alone is too long. UserError: see plan_chat.
    """
    system, turns = split_turns(messages)
    most = max(len(turns) - 1, 0)

    def plan(count: int) -> WindowPlan | None:
        kept = [*system, *(message for turn in turns[count:] for message in turn)]
        try:
            return WindowPlan(plan_chat(llm, kept, options), kept, count)
        except ContextOverflow:
            if count == most:
                raise
            return None

    first = min(left_out, most)
    planned = plan(first)
    if first == most or planned is not None and _room(llm, planned) >= _least_room(llm, options):
        return planned
    low, high = first + 1, most  # the fewest that leave enough; all the others where none do
    while low < high:
        middle = (low + high) // 2
        planned = plan(middle)
        if planned is not None and len(planned.plan.prompt) <= llm.max_model_len * MAX_PROMPT:
            high = middle
        else:
            low = middle + 1
    return plan(low)


def split_turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system messages at the beginning, and turns: a question with what follows it until the next one."""
    start = next((index for index, message in enumerate(messages) if message["role"] not in ("system", "developer")),
                 len(messages))
    turns: list[list[Message]] = []
    for message in messages[start:]:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return list(messages[:start]), turns


def _room(llm: LLM, planned: WindowPlan) -> int:
    return llm.max_model_len - len(planned.plan.prompt) - len(planned.plan.closing)


def _least_room(llm: LLM, options: GenerationOptions) -> int:
    """Tokens that a reply must have before something is left out for it."""
    least = min(int(llm.max_model_len * LEAST_REPLY), MAX_LEAST_REPLY)
    return least if options.max_tokens is None else min(options.max_tokens, llm.max_model_len // 2)
