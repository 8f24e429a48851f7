"""What the scripts of this folder share: arguments, and one line of JSON for each check."""

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

URL, KEY, MODEL = sys.argv[1:4]  # of the API with its /v1; an API key; a name of /v1/models
ASK = [{"role": "user", "content": "What is 12 + 30?"}]


def report(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def versions(*packages: str) -> None:
    report(versions={name: version(name) for name in packages})


@contextmanager
def check(name: str) -> Iterator[None]:
    """What is raised inside has failed, and the next check goes on."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        report(check=name, passed=False, message=f"{type(error).__name__}: {error}"[:500])
    else:
        report(check=name, passed=True)
