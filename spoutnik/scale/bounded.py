"""Calls into libraries that may wait for ever."""

import threading
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def within(seconds: float, make: Callable[[], Value]) -> Value:
    """What `make` returns. It may wait in C++ for ever, whatever time limit it was given, and is then left to itself.

    Raises:
        TimeoutError: it does not come back in time.
    """
    results: list[Value] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(make())
        except Exception as error:  # raised below
            errors.append(error)

    thread = threading.Thread(target=work, name="bounded", daemon=True)
    thread.start()
    thread.join(seconds)
    for error in errors:
        raise error
    if not results:
        raise TimeoutError
    return results[0]
