"""A stage that learned nothing, or whose result is worse than its start, is not done: it is sealed only when accepted.

What it made stays in its working folder, with the description that its manifest would have, so that accepting it costs nothing.
"""

from pathlib import Path

from spoutnik.errors import RunError
from spoutnik.files import read_json, write_json

REFUSED = "refused.json"


def refused(working: Path) -> dict | None:
    """The description of a stage that ended in `working` and was refused; None where there is none."""
    path = working / REFUSED
    return read_json(path) if path.exists() else None


def accepted(name: str, working: Path, description: dict, accept: bool) -> dict:
    """The description for the manifest. accept: the stage is sealed all the same, which the manifest says.

    Raises:
        RunError: the stage is not done, with the reasons and the remedies.
    """
    health = description["health"]
    if not health["refusals"]:
        return description
    if not accept:
        write_json(working / REFUSED, description)
        reasons = " ".join(reason[:1].upper() + reason[1:] for reason in health["refusals"])
        raise RunError(f"{name}: is not done. {reasons} Change the recipe and run again (what it made lies in {working}); to "
                       f"seal it as it is, run again with --accept {name}.")
    (working / REFUSED).unlink(missing_ok=True)
    line = health["line"].replace("not done: ", "accepted in spite of: ", 1)
    return description | {"health": health | {"line": line, "accepted": True}}
