"""First names that exist in both languages, with the gender that French agreement needs."""

FEMININE = ("Anna", "Clara", "Emma", "Eva", "Iris", "Julia", "Lea", "Lena", "Nina", "Sara")
MASCULINE = ("Adam", "Ben", "David", "Hugo", "Leo", "Louis", "Max", "Noah", "Oscar", "Paul")
NAMES = tuple(sorted(FEMININE + MASCULINE))


def agree(name: str, masculine: str, feminine: str) -> str:
    """The form that agrees with the name."""
    return feminine if name in FEMININE else masculine
