"""What the scripts of this folder share: arguments, a shape to ask for, and one line of JSON for each check."""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

URL, KEY, MODEL = sys.argv[1:4]  # of the API with its /v1; an API key; a name of /v1/models
ROOT = URL.removesuffix("/v1")
SLOW_URL = os.environ.get("SLOW_URL", URL)  # of a server that sends pings between any two tokens
SLOW_ROOT = SLOW_URL.removesuffix("/v1")
EAGER_URL = os.environ.get("EAGER_URL", URL)  # of a server whose model calls a tool wherever it may
EAGER_ROOT = EAGER_URL.removesuffix("/v1")
THINKS = os.environ.get("THINKS", "1") == "1"  # whether the model shows thoughts
QUESTION = "What is 12 + 30?"
ASK = [{"role": "user", "content": QUESTION}]
TOO_LONG = "1 " * 30_000
BRIEF_THOUGHT = {"max_thinking_tokens": 8}  # a field of the server's own


class City(BaseModel):
    """What a city is like."""

    model_config = ConfigDict(extra="forbid")  # where more properties may follow, random weights never end
    rain: bool
    size: int = Field(ge=0, le=99)
    kind: Literal["small", "large"]


class SkippedCheck(Exception):
    pass


def needs_thought() -> None:
    """Skips the check that calls it where the model has no thoughts to show."""
    if not THINKS:
        raise SkippedCheck("the model does not think")


def report(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def versions(*packages: str) -> None:
    report(versions={name: version(name) for name in packages})


@contextmanager
def check(name: str) -> Iterator[None]:
    """name: its kind, a colon, and what is tried. What is raised inside has failed, and the next check goes on."""
    try:
        yield
    except SkippedCheck as reason:
        report(check=name, skipped=str(reason))
    except Exception as error:
        traceback.print_exc()
        report(check=name, passed=False, message=f"{type(error).__name__}: {error}"[:500])
    else:
        report(check=name, passed=True)


@contextmanager
def refused(kind: type[Exception], *words: str) -> Iterator[None]:
    """The client must raise its own exception, and its text must hold these words."""
    try:
        yield
    except kind as error:
        missing = [word for word in words if word not in str(error)]
        assert not missing, f"{missing} not in {type(error).__name__}: {error}"
    else:
        raise AssertionError(f"it was not refused with {kind.__name__}")
