"""The program as a user starts it."""

import os
import subprocess
import sys


def spoutnik(*arguments: str, text: str = "") -> subprocess.CompletedProcess:
    """Runs `spoutnik` with these arguments in a process of its own; text: its standard input."""
    return subprocess.run([sys.executable, "-m", "spoutnik", *arguments], input=text, capture_output=True, text=True,
                          timeout=120, env=os.environ | {"COLUMNS": "160"})
