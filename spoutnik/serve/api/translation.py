"""What the endpoints of other APIs share, which are answered through chat requests: types of items and names of fields."""

import re
from collections.abc import Callable, Mapping

from pydantic import ConfigDict

from spoutnik.errors import UserError
from spoutnik.generation.options import GenerationPlan
from spoutnik.serve.api.common import Body

OTHER = "other"


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


def renamed_notes(plan: GenerationPlan, names: Mapping[str, str]) -> list[str]:
    """What there is to say of a plan."""
    return [rename_field(note, names) for note in plan.notes]
