"""Errors with an outside cause (a recipe, a file, a setting), which commands print as a sentence without a traceback.

The message names the file, the key, the value and the remedy. Internal invariants are asserts.
"""

import re
from pathlib import Path

_PATH = re.compile(r"""(?<![\w:/.<-])(?:~|(?P<root>/[^/\s'"():,;]+))(?:/[^/\s'"():,;]+)+""")


class UserError(ValueError):
    """The request itself is wrong (an unknown key, an impossible value). Exit status 2."""

    exit_status = 2


class RunError(ValueError):
    """The request was fine but could not be carried out (a damaged artifact, a full disk, a diverged loss). Status 1."""

    exit_status = 1


_NO_MEMORY = ("allocate memory", "not enough memory", "bad_alloc", "start new thread")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of this machine or of a GPU is used up. Python has a class for it and PyTorch one for GPUs (known by
    its name, since commands that need no torch do not import it); what a processor lacks is a RuntimeError of many wordings."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in _NO_MEMORY)


def hide_paths(message: str) -> str:
    """A sentence for others: of a path of this machine only the last part is left."""
    for folder in (Path.cwd(), Path.home()):  # they may have spaces in them
        if len(folder.parts) > 1:
            message = message.replace(f"{folder}/", "")
    return _PATH.sub(lambda match: Path(match[0]).name if match["root"] is None or Path(match["root"]).exists() else match[0],
                     message)
