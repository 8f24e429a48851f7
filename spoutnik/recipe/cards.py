"""The card of a stage's model, from the families it was trained on: what it can do, in a sentence, and what to ask it."""

from collections.abc import Sequence

from spoutnik.tasks import LANGUAGES
from spoutnik.tasks.examples import ABOUT, examples
from spoutnik.text.thought_marks import ThoughtMarks

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
ADAPTED_SENTENCE = {
    "en": "A model ({size} million parameters) that goes on from the checkpoint {checkpoint}",
    "fr": "Un modèle ({size} millions de paramètres) qui part du modèle publié {checkpoint}",
}
THOUGHT_MARKS = {
    "en": "; it writes its thoughts between {start} and {end}, {marks}",
    "fr": " ; il écrit ses réflexions entre {start} et {end}, {marks}",
}
ANSWER_MARKS = {"en": ", and its answers between {0} and {1}", "fr": ", et ses réponses entre {0} et {1}"}
PLAIN = {"en": "as plain text", "fr": "en toutes lettres"}
TOKENS = {"en": "tokens of their own", "fr": "qui ont leurs propres tokens"}
AND = {"en": " and ", "fr": " et "}


def model_card(families: Sequence[str], parameters: int, converses: bool, shown: Sequence[str]) -> dict:
    """A manifest's `card`. shown: the families whose questions are its examples; a model that does not converse has none."""
    card = {"description": {}, "examples": {}}
    for language in LANGUAGES:
        about = [ABOUT[language][name] for name in families]
        listed = AND[language].join([", ".join(about[:-1]), about[-1]] if len(about) > 1 else about)
        sentence = (SENTENCE if converses else BASE_SENTENCE)[language]
        card["description"][language] = sentence.format(size=_millions(parameters, language), families=listed)
        problems = [problem for name in shown for problem in examples(name, language)] if converses else []
        card["examples"][language] = [problem.prompt for problem in problems]
    return card


def adapted_card(checkpoint: str, parameters: int, converses: bool, marks: ThoughtMarks, plain_marks: bool) -> dict:
    """A manifest's `card`, of a model that descends from a published checkpoint. checkpoint: its name; marks: of its thoughts;
    plain_marks: its vocabulary has no tokens for the marks of thoughts. What it may be asked, its recipe does not say."""
    card = {"description": {}, "examples": {language: [] for language in LANGUAGES}}
    for language in LANGUAGES:
        sentence = ADAPTED_SENTENCE[language].format(size=_millions(parameters, language), checkpoint=checkpoint)
        if converses:
            sentence += THOUGHT_MARKS[language].format(start=marks.start, end=marks.end,
                                                       marks=(PLAIN if plain_marks else TOKENS)[language])
        if converses and marks.answer is not None:
            sentence += ANSWER_MARKS[language].format(*marks.answer)
        card["description"][language] = f"{sentence}."
    return card


def _millions(parameters: int, language: str) -> str:
    return f"{parameters / 1e6:.1f}".replace(".", "," if language == "fr" else ".")
