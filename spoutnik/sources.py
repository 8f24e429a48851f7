"""Python sources by what they do: hashes that comments and blank lines do not change."""

import hashlib
import io
import tokenize


def code_hash(source: str) -> str:
    """Of a module's text without comments, blank lines and spaces at line ends."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    text = "\n".join(stripped for line in lines if (stripped := line.rstrip()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
