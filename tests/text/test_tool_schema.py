"""Functions become the JSON schemas that transformers makes of them."""

from typing import Any, Literal, Optional, Union

import pytest
from transformers.utils import get_json_schema

from spoutnik.errors import UserError
from spoutnik.text.tool_schema import tool_schema


def simple(city: str, days: int = 3, precise: bool = False, scale: float = 1.0):
    """Tells the weather.

    Args:
        city: Where.
        days: How many days: at most seven,
            note: counted from today.
        precise: More digits.

        scale:
            A factor.
    """


def containers(names: list[str], table: dict[str, int], loose: list, open: dict, pair: tuple[int, str],
               matrix: list[list[float]], anything: Any) -> list[dict[str, float]]:
    """Works on containers.
    In two lines.

    Over two paragraphs.

    Args:
        names: a
        table: b
        loose: c
        open: d
        pair: e
        matrix: f
        anything: g

    Returns:
        What it made,
          with care.

    Raises:
        ValueError: never.
    """


def unions(a: Optional[str], b: int | float, c: Union[str, list[int], None] = None, d: Literal["x", "y"] = "x",
           e: Literal[1, "one", True] = 1, f: Literal["x"] | None = None, g: int | str | None = 2) -> None:
    """Takes unions.

    Args:
        a: a
        b: b
        c: c
        d: d
        e: e
        f: f
        g: g (choices: ["1", 2])
    """


def nothing() -> str:
    """Takes nothing."""


class Shop:
    def price(self, item: str) -> float:
        """Its price.

        Args:
            item: What.

        Returns:
            Euros.
        """


@pytest.mark.parametrize("function", [simple, containers, unions, nothing, Shop().price])
def test_a_function_s_schema_is_that_of_transformers(function):
    assert tool_schema(function) == get_json_schema(function)
    assert list(tool_schema(function)["function"]["parameters"]) == list(get_json_schema(function)["function"]["parameters"])


def without_docstring(a: int):
    pass


def without_line(a: int):
    """Does."""


def without_hint(a):
    """Does.

    Args:
        a: it
    """


def of_a_class(a: Shop):
    """Does.

    Args:
        a: it
    """


def with_bad_choices(a: str):
    """Does.

    Args:
        a: it (choices: [x, y])
    """


@pytest.mark.parametrize("function, sentence", [
    (without_docstring, "without_docstring: has no docstring"), (without_line, "argument a has no line under Args"),
    (without_hint, "argument a has no type hint"), (of_a_class, "argument a: the type .*Shop.* has no JSON schema"),
    (with_bad_choices, r"argument a: the choices \[x, y\] are not"),
])
def test_a_function_that_says_too_little_is_named(function, sentence):
    with pytest.raises(Exception):  # noqa: B017  transformers refuses it, too
        get_json_schema(function)
    with pytest.raises(UserError, match=sentence):
        tool_schema(function)
