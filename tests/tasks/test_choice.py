"""The letter of an answer to a multiple choice question: forms in which it is stated, and answers that settle on none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.tasks.choice import PROMPTS, extract, letters_of, prompt, right

CITIES = ("London", "A big city", "Paris", "New York")
STATED = ("Answer: C", "ANSWER: C", "answer: c", "**Answer: C**", "**Answer:** C", "Answer: $C$", "Answer: **C**",
          "Answer: (C)",
          "Answer: C.", "Answer: C) Paris", "Answer: C - Paris", "Answer: \\boxed{C}", "The answer is C", "The answer is (C).",
          "the correct answer is therefore C.", "So the answer to this question is option C",
          "The best choice is C because ...",
          "The answer must be C.", "The correct option is **C) Paris**.", "Final answer: C", "I would go with (C)",
          "I choose C.",
          "C is the correct answer.", "Option C is correct.", "(C) is correct, A is not.", "\\boxed{C}", "\\boxed{\\text{C}}",
          "$\\boxed{\\textbf{(C)}}$", "\\boxed{C. Paris}", "\\boxed{Paris}", "So it is $\\boxed{\\mathrm{C}}$.",
          "Réponse : C", "Réponse: (C)", "La réponse est C.", "La bonne réponse est la C.", "La réponse est donc la lettre C",
          "Je choisis la réponse C.", "C est la bonne réponse.", "答案：C", "答案是C", "The answer is Paris.", "Answer: paris",
          "**Final Answer:** The final answer is $\\boxed{C}$", "### Answer: C", "Answer: Ｃ", "A\u200bnswer: \u202eC",
          "Answer : C", "Answer = C", "Die Antwort ist C.", "La respuesta es (C)")
BARE = ("C", "(C)", "C.", "c", "**C**", "C)", "[C]", "C) Paris", "(C) Paris", "**C) Paris**", "C: Paris", "$C$", "\"C\"",
        "Paris", "paris.",
        "**Paris**", "C\n\nParis is the capital of France.", "It has the Louvre.\n\n**C**",
        "Clearly **C**, as it has the Louvre.",
        "It has the Louvre, so it must be (C).",
        "Option C", "- C", "#### C", "=> C", "Hence C", "So (C).", "C ✓", "✅ C", "C - Paris", "<answer>C</answer>",
        "<answer>\nC) Paris\n</answer>", "It has the Louvre.\n\nOption C")
NOTHING = ("", " \n", "I do not know.", "Answer:", "Answer: $LETTER", "Answer: E", "The answer is not C.", "Answer: A or C",
           "Answer: A, C", "Answer: A and C", "Answer: C/D", "Réponse : A ou C", "The answer is A or maybe B", "C) London",
           "Answer: C) London",
           "A) London\nB) A big city\nC) Paris\nD) New York", "A\nB\nC\nD", "\\boxed{A} \\boxed{B} \\boxed{C} \\boxed{D}",
           "\\boxed{", "\\boxed{C", "**A** or **C**", "London and Paris", "The answer is a city.", "A city that I like",
           "(A) or (C)?",
           "Answer: Cat", "Answer: C's", "The answer is CD", "Option A is incorrect.", "I am sure.",
           "The answer is A. No: the answer is C. There is more to say.", "Answer: 3", "C is correct only if it rains",
           "The answer is C? No, it is not.", "Option C or D", "- A\n- C", "So a city", "✅ A\n✅ C", "Option C: London")


@pytest.mark.parametrize("answer", STATED + BARE)
def test_a_letter_in_each_of_its_forms(answer):
    assert extract(answer, CITIES) == "C" and right("C", answer, CITIES) and not right("A", answer, CITIES)


@pytest.mark.parametrize("answer", STATED)
def test_a_statement_among_other_words(answer):
    assert extract(f"London is large. A is tempting, B too.\n{answer}\n", CITIES) == "C"


@pytest.mark.parametrize("answer", NOTHING)
def test_answers_that_settle_on_none(answer):
    assert extract(answer, CITIES) is None


@pytest.mark.parametrize("answer, letter", [
    ("Answer: A\nWait, it is not.\nAnswer: C", "C"), ("Answer: A\nAnswer: C\n\nI hope this helps!", "C"),
    ("The answer is A.\nNo, after all the answer is C.", "C"), ("First I think the answer is A. Final answer: C\nBye", "C"),
    ("\\boxed{A} was my guess.\nAnswer: C", "C"), ("The answer is C. I repeat, the answer is C. Good night.", "C"),
    ("Answer: C\nOption A is incorrect and the answer is C indeed.", "C")])
def test_of_different_statements_the_last_counts_where_it_is_final(answer, letter):
    assert extract(answer, CITIES) == letter


def test_an_article_is_no_letter():
    assert extract("The answer is A big city.", CITIES) == "B"
    assert extract("The answer is A because it is old.", CITIES) == "A"
    assert extract("Answer: a big city", CITIES) == "B"
    assert extract("The answer is a village.", CITIES) is None


def test_letters_without_the_options_texts():
    assert extract("Answer: J", letters="ABCDEFGHIJ") == "J" and extract("Answer: J") is None
    assert extract("C) whatever it is") == "C" and extract("The answer is (B) that one") == "B"


def test_options_with_the_same_text_are_told_apart_by_their_letters_alone():
    assert extract("yes", ("yes", "yes", "no")) is None and extract("Answer: B", ("yes", "yes", "no")) == "B"
    assert extract("Answer: B) yes", ("yes", "yes", "no")) == "B"


def test_options_that_are_letters_or_numbers():
    assert extract("Answer: B", ("B", "A")) == "B"  # the letter, not the option's text
    assert extract("\\boxed{42}", ("41", "42")) == "B" and extract("Answer: $x^2$", ("$x$", "$x^2$")) == "B"


@pytest.mark.parametrize("style", PROMPTS)
def test_each_prompt_leads_to_a_form_that_is_read(style):
    text = prompt("Which city?", CITIES, style)
    assert "ABCD" in text and text.endswith("Which city?\n\nA) London\nB) A big city\nC) Paris\nD) New York")
    form = text.split("'")[1]
    assert extract(form.replace("$LETTER", "C").replace("$LETTRE", "C").replace("X", "C"), CITIES) == "C"
    assert extract(text, CITIES) is None  # an echo of the prompt


def test_too_many_options():
    assert letters_of(10) == "ABCDEFGHIJ"
    for count in (0, 1, 27):
        with pytest.raises(ValueError, match=f"^{count} options"):
            letters_of(count)


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from((
    "Answer", ":", " is ", "the ", "C", "A", "\\boxed{", "}", "(", ")", "**", " or ", "Paris", "\n", "not ", "réponse",
    " est ")),
    max_size=25).map("".join)))
@settings(max_examples=300, deadline=None)
def test_no_answer_raises(answer):
    assert extract(answer, CITIES) in (None, "A", "B", "C", "D")


@pytest.mark.parametrize("piece", ["\\boxed{", "answer is ", "**", "A or ", "(A)", "\x00", "Answer: ", "the ", "C is the ",
                                   "'", " ", "is "])
def test_a_megabyte_is_read_to_its_end(piece):
    assert extract(piece * (1_000_000 // len(piece)), CITIES) in (None, "A")
    assert extract(piece * (1_000_000 // len(piece)) + "\nAnswer: C", CITIES) == "C"
