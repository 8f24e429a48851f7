"""aider's requests (0.86.2 through litellm), recorded from the program and sent again by OpenAI's client, which litellm uses;
its texts are replaced by others of their length. And the program itself, where AIDER names it: see client_conformance.py.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

import openai
from checks import KEY, MODEL, TOO_LONG, URL, check, needs_thought, report

AIDER = os.environ.get("AIDER")
# Roles and lengths of what it sends for one small change in one file.
SENT = [("system", 1191), ("user", 37), ("assistant", 201), ("user", 100), ("assistant", 3), ("user", 235), ("assistant", 58),
        ("user", 250), ("assistant", 49), ("user", 868)]
MESSAGES = [{"role": role, "content": ("Change the file. " * 80)[:length]} for role, length in SENT]
client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=600)

with check("stream: the request for a change"):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, stream=True, temperature=0, messages=MESSAGES)
    chunks = list(raw.parse())
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip()
with check("thought: in the same stream"):
    needs_thought()
    assert "".join(getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks)
with check("chat: the request for a commit message"):
    completion = client.chat.completions.create(model=MODEL, stream=False, temperature=0, messages=MESSAGES[:2])
    assert completion.choices[0].message.content.strip()
with check("error: too long, in the words that litellm knows"):
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": TOO_LONG}], stream=True)
    except openai.BadRequestError as refused:
        assert "this model's maximum context length is" in str(refused).lower()
    else:
        raise AssertionError("it was not refused")
if AIDER:
    with check("chat: the program itself"), tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.py").write_text("def f():\n    return 1\n")
        command = [AIDER, "--model", f"openai/{MODEL}", "--message", "Make f return 2.", "--yes", "--no-git",
                   "--no-check-update", "--no-show-model-warnings", "--analytics-disable", "a.py"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
                              env=os.environ | {"OPENAI_API_BASE": URL, "OPENAI_API_KEY": KEY, "HOME": folder})
        report(versions={"aider-chat": re.search(r"^Aider v(\S+)", done.stdout, re.MULTILINE)[1]})
        # Random weights may well talk until there is no more room: then it shows its page about limits, after all was read.
        whole = "Tokens:" in done.stdout or "hit a token limit" in done.stdout
        assert done.returncode == 0 and whole and "litellm." not in done.stdout, done.stdout[-400:]
