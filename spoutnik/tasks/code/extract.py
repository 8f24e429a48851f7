"""Finding the code in a model's answer."""

import ast
import re

FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[^\n`]*)\n(?P<code>.*?)"
                   r"(?:^[ \t]*(?P=fence)[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
PYTHON = ("python", "python3", "py")
MAX_ANSWER = 4 << 20  # characters; a longer answer has no code


def extract_code(answer: str, continues: bool = False) -> str | None:
    """The Python program in an answer: the last block that says it is Python, else the last block that names no other language,
    else the whole text where that is Python. None where there is none.

    Args:
        continues: the answer may also go on where a prompt ended, with the indented body of a function.
    """
    if len(answer) > MAX_ANSWER:
        return None
    answer = answer.replace("\r\n", "\n")
    blocks = [(block["language"].strip().lower(), _dedent(block["code"], block["indent"])) for block in FENCE.finditer(answer)]
    for languages in (PYTHON, ("",)):
        codes = [code for language, code in blocks if language.split(" ")[0] in languages and code.strip()]
        if codes:
            return codes[-1]
    if blocks:
        return None
    if _parses(answer):
        return answer if answer.strip() else None
    if continues and answer[:1] in " \t":
        return _body(answer)
    return None


def _dedent(code: str, indent: str) -> str:
    """A block in a list is indented as a whole."""
    if not indent:
        return code
    return "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))


def _body(answer: str) -> str | None:
    """The indented body of a function at the beginning of a text: models go on talking after it."""
    lines = answer.splitlines(keepends=True)
    for end in range(len(lines), 0, -1):
        if end < len(lines) and (lines[end][:1] in " \t" or not lines[end].strip()):
            continue  # cuts before unindented lines alone
        if _parses("def _():\n" + "".join(lines[:end])):
            return "".join(lines[:end])
    return None


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
