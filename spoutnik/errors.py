"""Errors with an outside cause (a recipe, a file, a setting), which commands print as a sentence without a traceback.

The message names the file, the key, the value and the remedy. Internal invariants are asserts.
"""


class UserError(ValueError):
    """The request itself is wrong (an unknown key, an impossible value). Exit status 2."""

    exit_status = 2


class RunError(ValueError):
    """The request was fine but could not be carried out (a damaged artifact, a full disk, a diverged loss). Status 1."""

    exit_status = 1
