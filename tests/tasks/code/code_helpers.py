"""Helpers shared by the tests of the code sandbox."""

import pytest

from spoutnik.errors import UserError
from spoutnik.tasks.code import bubblewrap


def reason_without_bubblewrap() -> str:
    """Why bubblewrap does not start here; empty where it does."""
    try:
        bubblewrap.find()
    except UserError as error:
        return str(error)
    return ""


REASON = reason_without_bubblewrap()
needs_bubblewrap = pytest.mark.skipif(bool(REASON), reason=REASON or "bubblewrap starts")
