"""The card of a stage's model, from the families it was trained on: what it can do, in a sentence, and what to ask it."""

from collections.abc import Sequence

from spoutnik.tasks import LANGUAGES
from spoutnik.tasks.examples import ABOUT, examples

SENTENCE = {
    "en": "A small reasoning model ({size} million parameters) that thinks before it answers: {families}.",
    "fr": "Un petit modèle de raisonnement ({size} millions de paramètres) qui réfléchit avant de répondre : {families}.",
}
BASE_SENTENCE = {
    "en": "A base model ({size} million parameters) that continues a text and was not taught to converse; it has read of "
          "{families}.",
    "fr": "Un modèle de base ({size} millions de paramètres) qui continue un texte et n'a pas appris à converser ; ses "
          "lectures : {families}.",
}
AND = {"en": " and ", "fr": " et "}


def model_card(families: Sequence[str], parameters: int, converses: bool, shown: Sequence[str]) -> dict:
    """A manifest's `card`. shown: the families whose questions are its examples; a model that does not converse has none."""
    card = {"description": {}, "examples": {}}
    for language in LANGUAGES:
        about = [ABOUT[language][name] for name in families]
        listed = AND[language].join([", ".join(about[:-1]), about[-1]] if len(about) > 1 else about)
        sentence = (SENTENCE if converses else BASE_SENTENCE)[language]
        size = f"{parameters / 1e6:.1f}".replace(".", "," if language == "fr" else ".")
        card["description"][language] = sentence.format(size=size, families=listed)
        problems = [problem for name in shown for problem in examples(name, language)] if converses else []
        card["examples"][language] = [problem.prompt for problem in problems]
    return card
