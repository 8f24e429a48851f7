"""Sentences and words of a text, without a trained model.

A period ends a sentence unless it belongs to an abbreviation, an initial, an ellipsis or the number of a list's entry and
what follows does not look like a beginning. Line breaks alone end none: so count the official checks.
"""

import re

ABBREVIATIONS = frozenset((
    "mr mrs ms dr prof rev hon st sr jr gen col sgt capt lt cmdr adm gov sen rep pres messrs mt ft inc corp co ltd bros dept "
    "univ assn est vs al approx cf ca ed eds ave blvd rd hwy e.g i.e u.s u.k u.n a.m p.m b.c a.d ph.d m.d b.a m.a d.c").split())
BEFORE_NUMBERS = frozenset((
    "no nos art sec ch vol pp p fig figs eq tel ext jan feb mar apr jun jul aug sept sep oct nov dec").split())
# Words that are capitalized where a sentence begins and hardly anywhere else.
STARTERS = frozenset((
    "a an the this that these those there here he she it we they you i his her its our their your my who what when where why "
    "how which if then but and or so yet for nor as at by from in into of on to with after before during since until while "
    "because although though however moreover furthermore meanwhile finally first second next also once each every all some "
    "many most both another any no not please let do does did is are was were has have had can could will would should may "
    "might must be are don't it's i'm").split())
_CLOSING = "\"'”’»)]}*_`」』》）"
_OPENING = "\"'“‘«([{*_`-–—"
_WORD = re.compile(r"\w+")
_PIECE = re.compile(r"[^。！？]*[。！？]+[”’」』》）]*|[^。！？]+")  # Chinese and Japanese leave no space behind a sentence


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    """The sentences of a text, white space between words as single spaces."""
    tokens = [piece for token in text.split() for piece in _PIECE.findall(token)]
    result, begun = [], []
    for position, token in enumerate(tokens, 1):
        begun.append(token)
        if position == len(tokens) or _ends(token, tokens[position]):
            result.append(" ".join(begun))
            begun = []
    return result


def _ends(token: str, following: str) -> bool:
    """Whether a sentence ends with a word, given the next one."""
    core = token.rstrip(_CLOSING)
    if core.endswith(("?", "!", "。", "？", "！")):
        return True
    if not core.endswith("."):
        return False
    beginning = following.lstrip(_OPENING)
    word = core[:-1].lstrip(_OPENING).lower()
    if word.endswith(".") or not word:  # an ellipsis
        return beginning[:1].isupper()
    if word.isdigit():
        return not beginning[:1].islower()
    if word in BEFORE_NUMBERS:
        return not beginning[:1].isdigit()
    if word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()) or re.fullmatch(r"(?:[^\W\d]\.)+[^\W\d]", word):
        return beginning[:1].isupper() and beginning.rstrip(_CLOSING + ".,:;?!").lower() in STARTERS
    return True
