"""Multiple choice: the paper's prompts, and the letter that an answer settles on.

An answer states its letter ("Answer: C", "the answer is (C)", a box, "C is correct", the same in French, the text of an
option in the letter's place), or is nothing but a letter. Statements that differ count only where the last one is final: on
the last line, on a line of its own, or called final. "A or B", a letter with another option's text, a denied letter and no
letter at all are wrong: a parser that picks one in such a case teaches a model to hedge.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

LONGEST = 20_000  # characters from the end that are read
MOST_STATEMENTS = 100  # of a line, from its end
LONGEST_OPTION = 2_000  # characters of an option's text that are compared
# arXiv 2501.12948v2, appendix: the protocol of MMLU, of GPQA and of MMLU-Pro; a French one of ours.
PROMPTS = {
    "mmlu": "Answer the following multiple choice question. The last line of your response should be of the following format: "
            "'Answer: $LETTER' (without quotes) where LETTER is one of {letters}. Think step by step before answering.",
    "gpqa": "Answer the following multiple choice question. The last line of your response should be of the following format: "
            "'ANSWER: $LETTER' (without quotes) where LETTER is one of {letters}. Think step by step before answering.",
    "mmlu_pro": "Answer the following multiple choice question. Think step by step, then finish with 'The answer is (X)', "
                "where X is one of {letters}.",
    "fr": "Réponds à la question à choix multiple suivante. La dernière ligne de ta réponse doit avoir la forme "
          "'Réponse : $LETTRE' (sans guillemets), où LETTRE est l'une de {letters}. Réfléchis pas à pas avant de répondre."}

_AMBIGUOUS = "?"
# What may stand between a statement and its letter.
_FILLER = re.compile(
    r"[*_\"'`\s]*(?:(?:therefore|thus|clearly|then|indeed|definitely|probably|likely|most|hence|so|in fact|donc|alors|bien|"
    r"clairement|ainsi|the|la|le|l['’]|option|choice|letter|answer|réponse|lettre|choix|number|statement|proposition)"
    r"\b['’]?\s*)*", re.IGNORECASE)
_STATEMENT = re.compile(
    r"(?i:\b(?:answer|response|option|choice|réponse|reponse|choix|antwort|respuesta|risposta|resposta|ответ)\b[*_\"'`]*\s*"
    r"(?:[:：=]|\s(?:[\w’'-]+\s+){0,6}?(?:is|are|be|est|serait|sera|ist|es|è|é)\b)[*_\"'`\s:：]*|答案(?:是|为)?\s*[:：]?\s*"
    r"|\b(?:choose|select|pick|go with|choisis|choisirais|opte pour|retiens)\b\s*|\\boxed(?=\s*\{))")
_NAMED = re.compile(r"(?<![\w'’\\])(?P<letter>[A-Z])(?![\w'’])[)\].:*_]*\s+(?i:is|est)\s+(?i:therefore|thus|clearly|"
                    r"indeed|donc|bien|\s)*(?i:the\s+|la\s+|le\s+)?(?i:correct|right|best|only correct|bonne|correcte|juste)\b"
                    r"(?!\s+(?i:for|if|in|only|when|but)\b)")
_LETTER = re.compile(r"(?P<open>(?:[\s*_\"'`$(\[{«“]|\\(?:text|mathrm|mathbf|textbf|mathbb|rm|bf)\b|\\[(\[])*)"
                     r"(?P<letter>[A-Za-z])(?![\w'’])(?P<tail>.*)", re.DOTALL)
_CLOSERS = re.compile(r"(?:\\[)\]]|[\s*_\"'`$)\]}».”:;,!])*(?:[-–—]+\s+)?")
_ANOTHER = re.compile(r"[\s*_)\]}$.\"']*(?:,|/|&|;|\bor\b|\band\b|\bou\b|\bet\b|\bnor\b)+\s*"
                      r"(?:(?:or|and|ou|et|the|la|option)\s+)*[*_(\[{$\"']*(?P<letter>[A-Z])(?![\w'’])")
_REASON = re.compile(r"\s+(?i:because|since|as|for|due|given|which|with|by|car|parce|puisque|is|est|and|et)\b")
# What stands around a line's letter and says nothing of it.
_LEAD = re.compile(r"^\s*(?:[-–—•>✅✓✔☑]+\s+|#+\s*|=+>\s*|→\s*|(?i:option|choice|letter|lettre|choix|hence|thus|therefore|so"
                   r"|donc|ainsi)[\s:,]+(?=[*_(\[$]*[A-Z](?![\w'’])))")
_TRAIL = re.compile(r"\s*[✅✓✔☑]+\s*$")
_TAGS = re.compile(r"</?answer>", re.IGNORECASE)  # R1-Zero's
_ASKED = re.compile(r"[\s*_)\]}$\"'»”]*\?")
_BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*")
_IN_BRACKETS = re.compile(r"[(\[]([A-Z])[)\]]")
_FINAL = re.compile(r"(?i)\bfinal(?:e|ly|ement)?\b|\bconclusion\b")


def prompt(question: str, options: Sequence[str], style: str = "mmlu") -> str:
    """The prompt of a question. style: a key of PROMPTS."""
    letters = letters_of(len(options))
    lines = (f"{letter}) {option}" for letter, option in zip(letters, options, strict=True))
    return f"{PROMPTS[style].format(letters=letters)}\n\n{question}\n\n" + "\n".join(lines)


def letters_of(count: int) -> str:
    """ABCD for four options. Raises ValueError where there are not letters enough, or nothing to choose."""
    if not 2 <= count <= len(ascii_uppercase):
        raise ValueError(f"{count} options: a choice has from 2 to {len(ascii_uppercase)}.")
    return ascii_uppercase[:count]


def right(gold: str, answer: str, options: Sequence[str] = (), letters: str = "ABCD") -> bool:
    """Whether an answer settles on the letter `gold`. options: their texts, where they are known; else `letters` says which
    letters there are."""
    return extract(answer, options, letters) == gold


def extract(answer: str, options: Sequence[str] = (), letters: str = "ABCD") -> str | None:
    """The letter that an answer, without its thought, settles on; None where it settles on none."""
    letters = letters_of(len(options)) if options else letters
    texts = {letter: _plain(_readable(option)) for letter, option in zip(letters, options, strict=False)}
    lines = [line for line in _TAGS.sub("\n", _readable(answer)).split("\n") if line.strip()]
    statements = [statement for number, line in enumerate(lines) for statement in _statements(line, number, letters, texts)]
    if statements:
        return _settled(statements, lines)
    for candidates in (_bare(lines, letters, texts), _bold(lines, letters, texts), _option_texts(lines, texts),
                       set(_IN_BRACKETS.findall(lines[-1])) & set(letters) if lines else set()):
        if candidates:
            return candidates.pop() if len(candidates) == 1 and _AMBIGUOUS not in candidates else None
    return None


@dataclass(frozen=True)
class _Statement:
    """A letter, or _AMBIGUOUS, that a line states. final: it is called so. alone: the line begins with it."""

    line: int
    letter: str
    final: bool
    alone: bool


def _statements(line: str, number: int, letters: str, texts: dict[str, str]) -> list[_Statement]:
    results = []
    for match in [*_STATEMENT.finditer(line)][-MOST_STATEMENTS:]:
        if match[0] == "\\boxed":
            letter = _letter(_braces(line[match.end():match.end() + 2 * LONGEST_OPTION]), letters, texts)
        else:
            rest = line[match.end():match.end() + LONGEST_OPTION]
            letter = _of_text(rest, texts) or _letter(rest[_FILLER.match(rest).end():], letters, texts)
        if letter is not None:
            alone = not line[:match.start()].strip(" *_#>-$.")
            results.append(_Statement(number, letter, _called_final(line, match), alone))
    results += [_Statement(number, match["letter"], _called_final(line, match), False) for match in _NAMED.finditer(line)
                if match["letter"] in letters]
    return results


def _called_final(line: str, match: re.Match) -> bool:
    return _FINAL.search(line[max(0, match.start() - 30):match.end()]) is not None


def _settled(statements: list[_Statement], lines: list[str]) -> str | None:
    stated = {statement.letter for statement in statements}
    if len(stated) > 1:
        last = max(statement.line for statement in statements)
        ending = [statement for statement in statements if statement.line == last]
        if called := [statement for statement in ending if statement.final]:
            ending = called
        elif last < len(lines) - 1 and not any(statement.alone for statement in ending):
            return None
        stated = {statement.letter for statement in ending}
    letter = stated.pop() if len(stated) == 1 else _AMBIGUOUS
    return None if letter == _AMBIGUOUS else letter


def _letter(text: str, letters: str, texts: dict[str, str], alone: bool = False) -> str | None:
    """The letter that a text begins with, or whose option it is; None where it is something else. alone: nothing else but its
    option may follow the letter."""
    if (named := _of_text(text, texts)) is not None:
        return named
    match = _LETTER.match(text)
    if match is None or match["letter"].upper() not in letters:
        return None
    letter, tail, wrapped = match["letter"].upper(), match["tail"], match["open"].strip() != ""
    follows = tail[_CLOSERS.match(tail).end():]
    if (another := _ANOTHER.match(tail)) and another["letter"] in letters and another["letter"] != letter:
        return _AMBIGUOUS
    if _ASKED.match(tail):  # B? No, ...
        return None
    own = bool(texts.get(letter)) and texts[letter] == _plain(follows)
    marked = wrapped or tail[:1] in (")", "]", ".", ":", "*", "}", "$", ",", ";") or not follows or own
    if not marked and (match["letter"].islower() or letter in "AI") and not _REASON.match(tail):
        return None  # an article or a pronoun
    if alone and not marked:
        return None
    others = {other for other, option in texts.items() if option and other != letter and _plain(follows) == option}
    if others and _plain(follows) != texts.get(letter):
        return _AMBIGUOUS
    if alone and follows and (texts.get(letter) != _plain(follows) if texts else tail[:1] not in (")", "]", ".", ":")):
        return None
    return letter


def _of_text(text: str, texts: dict[str, str]) -> str | None:
    """The letter of the one option whose text this is; a letter is a letter first."""
    plain = _plain(text)
    named = [letter for letter, option in texts.items() if option and plain == option and plain.upper() not in texts]
    return named[0] if len(named) == 1 else None


def _bare(lines: list[str], letters: str, texts: dict[str, str]) -> set[str]:
    """Letters of lines that are a letter, with its option or not."""
    bare = [_TRAIL.sub("", _LEAD.sub("", line, count=1)) for line in lines if len(line) < LONGEST_OPTION]
    return {letter for line in bare if (letter := _letter(line, letters, texts, alone=True))}


def _bold(lines: list[str], letters: str, texts: dict[str, str]) -> set[str]:
    return {letter for line in lines for part in _BOLD.findall(line) if (letter := _letter(part, letters, texts, alone=True))}


def _option_texts(lines: list[str], texts: dict[str, str]) -> set[str]:
    """Letters of the options whose text is the whole answer."""
    whole = _plain(" ".join(lines)) if len(lines) < 20 else ""
    return {letter for letter, option in texts.items() if option and option == whole}


def _braces(text: str) -> str:
    """What stands within the braces that a text begins with, by counting them; nothing where they are not closed."""
    depth, start = 0, text.find("{")
    for position, character in enumerate(text[start:], start):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[start + 1:position]
    return ""


def _readable(answer: str) -> str:
    """The end of an answer without invisible characters, wide letters as ordinary ones."""
    text = unicodedata.normalize("NFKC", answer[-LONGEST:])
    return "".join(character for character in text if character in "\n\t" or unicodedata.category(character)[0] != "C")


def _plain(text: str) -> str:
    """A text for comparison: without marks of emphasis, formulas' dollars and final punctuation; case and spacing count not."""
    text = unicodedata.normalize("NFKC", text[:LONGEST_OPTION])
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf|boxed)\s*(?=\{)|[*_`$]", "", text)
    return " ".join(text.casefold().split()).strip(" .!;,\"'{}()[]«»“”")
