"""What the endpoints of other APIs share, which are answered through chat requests: types of items and names of fields."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, ValidationError

from spoutnik.errors import UserError
from spoutnik.generation.completion import CompletionPlan
from spoutnik.generation.context_window import plan_within_window, split_turns
from spoutnik.generation.options import ContextOverflow, GenerationOptions, GenerationPlan
from spoutnik.generation.service import ServedModel
from spoutnik.serve.api.chat_request import ChatRequest, options_of, plan_of
from spoutnik.serve.api.common import Body, Sampling
from spoutnik.serve.errors import ApiError

OTHER = "other"
_COUNTS = ("n", "best_of", "n_thoughts")  # of answers: 1 asks for nothing more
Request = TypeVar("Request", bound=Sampling)


class OtherItem(Body):
    """An item of a type that is not known here, to be refused or skipped by its name."""

    model_config = ConfigDict(extra="allow")

    type: str


def known_type(*types: str, default: str | None = None) -> Callable[[object], str | None]:
    """A discriminator of unions of items: the type of a known one, else OTHER. default: of an item that gives none."""
    def discriminate(item: object) -> str | None:
        kind = item.get("type", default) if isinstance(item, dict) else getattr(item, "type", default)
        return kind if kind in types or not isinstance(kind, str) else OTHER

    return discriminate


def make_request(kind: type[Request], fields: Mapping[str, object], extra: Mapping[str, object] | None,
                 unplaced: Collection[str] = ("n_thoughts",)) -> Request:
    """A request of ours. extra: what was given besides the other API's fields: ours are read there, too. unplaced: those that
    the other API's answers have no place for.

    Raises:
        RequestValidationError: one of them has a wrong value.
        ApiError: one is asked for whose answer could not be given.
    """
    for name in unplaced:
        value = (extra or {}).get(name)
        if not (value is None or value is False or name in _COUNTS and value == 1 and value is not True):
            raise ApiError(400, f"{name}: this API's answers have no place for it. Leave it out, or ask /v1/chat/completions.",
                           name)
    given = {name: value for name, value in fields.items() if value is not None}
    given |= {name: value for name, value in (extra or {}).items() if not name.startswith("_")}
    try:
        return kind(**given)
    except ValidationError as error:
        errors = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(errors, body=given) from error


def rename_field(sentence: str, names: Mapping[str, str]) -> str:
    """A sentence about a field, with its name in the other API. names: patterns of the beginnings of sentences about the chat
    API's."""
    for pattern, name in names.items():
        renamed, count = re.subn(rf"^{pattern}(?=[.: ])", name, sentence)
        if count:
            return renamed
    return sentence


def rename_fields(error: UserError, names: Mapping[str, str]) -> UserError:
    return type(error)(rename_field(str(error), names))


def renamed_notes(plan: GenerationPlan | CompletionPlan, names: Mapping[str, str]) -> list[str]:
    """What there is to say of a plan."""
    return [rename_field(note, names) for note in plan.notes]


def plan_fitting(chat: ChatRequest, served: ServedModel) -> tuple[ChatRequest, GenerationPlan, GenerationOptions]:
    """`plan_of` for a conversation whose oldest questions may be left out. Returns the request without them, too."""
    try:
        return chat, *plan_of(chat, served)
    except ContextOverflow:
        options, messages = options_of(chat, served), chat.template_messages
        window = plan_within_window(served.llm, messages, options)
        if not window.left_out:
            raise
    start, count = len(split_turns(messages)[0]), len(messages) - len(window.messages)
    chat = chat.model_copy(update={"messages": chat.messages[:start] + chat.messages[start + count:]})
    note = f"messages: the conversation is too long; the first {count} after the system's were left out."
    return chat, replace(window.plan, notes=(*chat.notes, note, *window.plan.notes)), options
