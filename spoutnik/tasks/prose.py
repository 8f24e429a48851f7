"""What of a text is prose: without formulas, code, addresses and digits, cut into sentences.

Formulas and code read as English to every identifier of languages. Each step is linear in the text, whatever it holds.
"""

import re
import unicodedata

import regex

LONGEST_SENTENCE = 40  # words; what goes on is cut there, so that a text without a period is still looked at in parts

# Zero width, direction marks, NUL, lone surrogates.
_INVISIBLE = regex.compile(r"[\p{Cf}\p{Cc}\p{Cs}\p{Co}\p{Cn}--[\n\t ]]", regex.V1)
_ADDRESS = re.compile(r"(?:https?|ftp)://\S+|www\.\S+|[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_DOLLARS = re.compile(r"\$\$[^$]{1,2000}\$\$|\$(?=[^\s$])([^$\n]{1,400})(?<=\S)\$(?!\d)")  # as pandoc: $5 and $7 are prices
_INLINE_CODE = re.compile(r"`([^`\n]{1,400})`")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>")
_END = re.compile(r"\\end\{[A-Za-z]{0,20}\*?\}")
_GROUP = re.compile(r"\{[^{}\n]{0,200}\}")
_COMMAND = re.compile(r"\\[A-Za-z]+\*?(?:\[[^\[\]\n]{0,60}\])?|\\[^A-Za-z\s]")
_TERM = re.compile(r"[!-~]+")  # ASCII without spaces
_OPERATOR = re.compile(r"[\d_=<>+*/^{}|~\\#%&@]")
_PLAIN = re.compile(r"[A-Za-z]{4,}")
_RUN_OF_WORDS = regex.compile(r"(?:\p{L}[\p{L}\p{M}'’]++[,;:.]? ){4}\p{L}{2}|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]{8}")
_LONGEST_CODE_LINE = 300
_STATEMENT = re.compile(
    r"(?:async )?def \w+\(|class \w+[(:{]|import [\w.]+(?: as \w+)?$|from [\w.]+ import |#include|@\w+$|#!|>>> |"
    r"for \w+(?:, ?\w+)* in [\w.()\[\]]+:$|(?:else|try|finally):$|(?:print|assert|input|len|range)\s?\(|"
    r"return [\w.()\[\]+*/ -]+$|[A-Za-z_][\w.\[\]]* ?[-+*/|&]?= ?\S|[})\];]+$|"
    r"(?:var|let|const|int|float|double|auto) \w+ ?[=;]")
_BLOCK_START = re.compile(r"(?:for|while|if|elif|except)\b")
_CONDITION = re.compile(r"[(=<>\[\d]")
_SENTENCE_END = re.compile(r"(?<=[.!?…;:؟؛])\s+|[\n\t]+|(?<=[。！？；：।॥])")


def prose(text: str) -> str:
    """The text without LaTeX, code (fenced, between backticks, lines of it), addresses, tags, digits, invisible characters."""
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text)) if not text.isascii() or not text.isprintable() else text
    if "```" in text:
        text = _without(text, "```", "```")
    if "`" in text:
        text = _INLINE_CODE.sub(_unless_prose, text)
    if "$" in text:
        text = _DOLLARS.sub(_unless_prose, text)
    if "://" in text or "www." in text or "@" in text:
        text = _ADDRESS.sub(" ", text)
    if "\\" in text:
        text = _without_latex(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    text = "\n".join(" " if _is_code(line) else line for line in text.split("\n"))
    return _TERM.sub(_words_of_term, text)


def sentences(text: str) -> list[str]:
    """A text's sentences, clauses after a colon and lines, none longer than LONGEST_SENTENCE words."""
    parts = []
    for sentence in _SENTENCE_END.split(text):
        words = sentence.split()
        parts += [" ".join(words[i:i + LONGEST_SENTENCE]) for i in range(0, len(words), LONGEST_SENTENCE)]
    return parts


def _without(text: str, opening: str, closing: str, longest: int | None = None) -> str:
    """A text without what stands between two marks, the marks included; an opening without its end stays."""
    kept, at, end = [], 0, -1
    start = text.find(opening)
    while start >= 0:
        if end < start + len(opening):
            end = text.find(closing, start + len(opening))
        if end < 0:
            break
        if longest is None or end - start <= longest:
            kept.append(text[at:start])
            at = end + len(closing)
            start = text.find(opening, at)
        else:
            start = text.find(opening, start + len(opening))
    return " ".join([*kept, text[at:]])


def _without_latex(text: str) -> str:
    text = _without(text, "\\(", "\\)", 2_000)
    text = _without(text, "\\[", "\\]", 4_000)
    if "\\begin{" in text:
        text = _without(_END.sub(r"\\end{}", text), "\\begin{", "\\end{}", 10_000)
    for _ in range(3):  # braces within braces, as in \boxed{\frac{1}{2}}
        text = _GROUP.sub(" ", text)
    return _COMMAND.sub(" ", text)


def _unless_prose(match: re.Match) -> str:
    """Prose between marks of formulas or of code stays prose: one could hide there."""
    return match[0] if _RUN_OF_WORDS.search(match[0]) else " "


def _is_code(line: str) -> bool:
    """Whether a line is a statement of Python, or of a language with braces."""
    if not line or len(line) > _LONGEST_CODE_LINE:
        return False
    bare = line.strip()
    if _RUN_OF_WORDS.search(bare):  # "x = 5, so she has five left"
        return False
    if line[:1] in " \t" and bare.startswith("return"):
        return True
    return bool(_STATEMENT.match(bare) or bare[-1:] in (":", "{") and _BLOCK_START.match(bare) and _CONDITION.search(bare))


def _words_of_term(match: re.Match) -> str:
    """Of `total_cost=price*3` the words, of `2x+3y` and `f(x)=ax` nothing; what holds no digit and no operator as it is."""
    return f" {' '.join(_PLAIN.findall(match[0]))} " if _OPERATOR.search(match[0]) else match[0]
