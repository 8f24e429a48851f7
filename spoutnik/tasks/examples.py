"""What each family is, in a few words, and questions of it as people ask them: for the cards of the models trained on it."""

from spoutnik.tasks import FAMILIES
from spoutnik.tasks.problem import Problem

ABOUT = {
    "en": {"countdown": "number puzzles", "arithmetic": "calculations of several terms", "equations": "equations",
           "bases": "binary numbers",
           "letters": "words backwards", "ordering": "who is the tallest", "liars": "who lies", "calendar": "weekdays",
           "operations": "one-step calculations", "spell": "the letters of words"},
    "fr": {"countdown": "le compte est bon", "arithmetic": "les calculs à plusieurs termes", "equations": "les équations",
           "bases": "les nombres binaires", "letters": "les mots à l'envers", "ordering": "qui est le plus grand",
           "liars": "qui ment", "calendar": "les jours de la semaine", "operations": "les calculs à une étape",
           "spell": "les lettres des mots"},
}


def _twins(family: str, english: str, french: str, answer: str, data: dict, french_answer: str = "") -> list[Problem]:
    task = FAMILIES[family]
    return [Problem(task, 1, "en", english, answer, data), Problem(task, 1, "fr", french, french_answer or answer, data)]


_EXAMPLES = [
    *_twins("operations", "What is 17 + 26?", "Combien font 17 + 26 ?", "43", {"operation": [17, "+", 26]}),
    *_twins("operations", "What is 3 + 4?", "Combien font 3 + 4 ?", "7", {"operation": [3, "+", 4]}),
    *_twins("spell", "How many r's are in strawberry?", "Combien de r y a-t-il dans strawberry ?", "3",
            {"word": "strawberry", "shown_letter": "r"}),
    *_twins("equations", "Solve 3x + 4 = 19.", "Résous 3x + 4 = 19.", "5",
            {"a": 3, "b": 4, "d": 0, "e": 19, "x": 5, "shown_inner": 0}),
    *_twins("calendar", "Today is Friday. What day is it in 10 days?",
            "Nous sommes vendredi. Quel jour serons-nous dans 10 jours ?",
            "Monday", {"weekday": 4, "days": 10}, "lundi"),
    *_twins("arithmetic", "What is 12 + 7 - 5?", "Combien font 12 + 7 - 5 ?", "14", {"expression": "12 + 7 - 5"}),
    *_twins("countdown", "Use 3, 5, 8 once each to make 16.", "Utilise 3, 5, 8 une fois chacun pour faire 16.", "(8 + 5) + 3",
            {"numbers": [3, 5, 8], "target": 16}),
    *_twins("ordering", "Anna is taller than Ben. Ben is taller than Clara. Who is the tallest?",
            "Anna est plus grande que Ben. Ben est plus grand que Clara. Qui est le plus grand ?", "Anna",
            {"chain": ["Anna", "Ben", "Clara"], "relation": "height", "rank": 1, "from_top": True,
             "shown_facts": [[0, False], [1, False]]}),
    *_twins("liars", "Each one always lies or always tells the truth. Max says: Eva lies. Eva says: none of us lies. "
            "Who tells the truth?", "Chacun ment toujours ou dit toujours la vérité. Max dit : Eva ment. Eva dit : aucun de "
            "nous ne ment. Qui dit la vérité ?", "Max",
            {"names": ["Max", "Eva"], "statements": [["is", 1, False], ["count", 0]]}),
    *_twins("bases", "Write 10 in binary.", "Écris 10 en binaire.", "1010", {"value": 10, "from": 10, "to": 2}),
    *_twins("letters", 'Reverse the word "cat".', 'Renverse le mot "cat".', "tac", {"reverse": "cat"}),
]


def examples(family: str, language: str) -> list[Problem]:
    """The family's questions for a card, the best known first."""
    return [problem for problem in _EXAMPLES if problem.family == family and problem.language == language]
