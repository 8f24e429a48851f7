"""The card that a stage seals into its manifest."""

from spoutnik.recipe.cards import model_card
from spoutnik.tasks.examples import examples


def test_a_model_that_converses_shows_questions_of_the_families_named():
    card = model_card(["countdown", "operations", "spell"], 3_440_000, True, ["operations"])
    assert card["description"]["en"] == ("A small reasoning model (3.4 million parameters) that thinks before it answers: "
                                         "number puzzles, one-step calculations and the letters of words.")
    assert "3,4 millions" in card["description"]["fr"]
    assert card["examples"]["fr"] == [problem.prompt for problem in examples("operations", "fr")]
    assert "What is 17 + 26?" in card["examples"]["en"]


def test_a_base_says_that_it_continues_texts_and_has_no_questions():
    card = model_card(["countdown"], 600_000, False, ["countdown"])
    assert "continues a text" in card["description"]["en"] and "n'a pas appris à converser" in card["description"]["fr"]
    assert card["examples"] == {"en": [], "fr": []}
