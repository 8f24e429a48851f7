"""A chat in this process needs no server."""

import subprocess
import sys


def test_chat_imports_no_server():
    code = "import sys, spoutnik; spoutnik.Chat; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "spoutnik.generation.chat" in modules
    assert not {"fastapi", "uvicorn", "starlette", "nicegui", "spoutnik.serve"} & set(modules)
