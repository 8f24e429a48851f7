"""The two ways a command can fail because of the world outside; the CLI prints them as a sentence, without a traceback.

Internal invariants are asserts. What comes from outside (a recipe, a file, a setting) raises one of these, and the
message names the file, the key, the value and the remedy.
"""


class UserError(ValueError):
    """The request itself is wrong (an unknown key, an impossible value). Exit status 2."""

    exit_status = 2


class RunError(ValueError):
    """The request was fine but could not be carried out (a damaged artifact, a full disk, a diverged loss). Status 1."""

    exit_status = 1
