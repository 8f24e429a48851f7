"""Rows of each verifier: what they accept as an answer, and what is wrong with a row."""

import re

import pytest
from endpoint_server import completion, endpoint_server

from spoutnik.errors import UserError
from spoutnik.tasks.own.reading import checked_row
from spoutnik.tasks.own.rows import VERIFIERS

CITIES = ["London", "Paris", "Rome"]
# (row without its prompt, answers that are right, answers that are not)
CASES = (
    ({"verifier": "choice", "answer": "B", "choices": CITIES}, ["Answer: B", "B) Paris", "paris"], ["A", "", "A or B"]),
    ({"verifier": "choice", "answer": "Paris", "choices": CITIES}, ["\\boxed{B}"], ["Answer: A"]),
    ({"verifier": "choice", "answer": "(C)"}, ["Answer: C"], ["Answer: B"]),
    ({"verifier": "choice", "answer": "F", "letters": "ABCDEF"}, ["Answer: F"], ["Answer: E"]),
    ({"verifier": "choice", "answer": 20, "choices": [10, 20]}, ["Answer: B", "20"], ["10"]),
    ({"verifier": "exact", "answer": "Paris"}, ["Paris", "Answer: Paris"], ["paris", "Paris!"]),
    ({"verifier": "exact", "answer": "Paris", "ignore_case": True, "ignore_punctuation": True}, ["PARIS!"], ["Pari s"]),
    ({"verifier": "exact", "answer": 42}, ["42"], ["42.0"]),
    ({"verifier": "regex", "answer": "[0-9]+ km"}, ["12 km"], ["12 km/h", "km"]),
    ({"verifier": "numeric", "answer": 9.81, "absolute_tolerance": 0.02}, ["9.8", "\\boxed{9.82}"], ["9.7", "9.8 or 9.7"]),
    ({"verifier": "numeric", "answer": "5 m", "unit": "m", "relative_tolerance": 0.1}, ["5.4 m", "5"], ["5.6 m", "5 km"]),
    ({"verifier": "numeric", "answer": "3,5", "language": "fr"}, ["3,5", "3.5"], ["35"]),
    ({"verifier": "json", "answer": {"a": [1]}}, ['{"a": [1]}'], ['{"a": [2]}', "x"]),
    ({"verifier": "json", "answer": None}, ["null"], ["", "0"]),
    ({"verifier": "json", "schema": {"type": "array", "minItems": 1}}, ["[1]"], ["[]", "1"]),
    ({"verifier": "json", "schema": {"type": "integer"}, "answer": 7}, ["7"], ["8", '"7"']))


@pytest.mark.parametrize("row, right, wrong", CASES, ids=range(len(CASES)))
def test_answers_that_are_right_and_wrong(row, right, wrong):
    row = checked_row({"prompt": "p", **row})
    assert [row.verify(answer) for answer in right] == [1.0] * len(right)
    assert [row.verify(answer) for answer in wrong] == [0.0] * len(wrong)


def test_math_rows_are_graded_by_the_grader_of_mathematics():
    pytest.importorskip("spoutnik.tasks.maths")
    row = checked_row({"prompt": "p", "verifier": "math", "answer": 0.5})
    assert row.verify("So it is $\\boxed{\\frac{1}{2}}$.") == 1.0 and row.verify("\\boxed{2}") == 0.0 and row.verify("") == 0.0
    french = checked_row({"prompt": "p", "verifier": "math", "answer": "3,5", "language": "fr"})
    assert french.verify("\\boxed{3,5}") == 1.0


def test_code_rows_keep_their_tests():
    pytest.importorskip("spoutnik.tasks.code")
    row = checked_row({"prompt": "p", "verifier": "code", "tests": [{"input": "1\n", "output": "2\n"}]})
    assert row.gold == "" and row.timeout == 5.0
    with pytest.raises(UserError):
        checked_row({"prompt": "p", "verifier": "code", "tests": [{"input": "1"}]})


def test_choices_are_written_below_the_prompt_in_its_language():
    row = checked_row({"prompt": "Which?", "verifier": "choice", "answer": "A", "choices": CITIES})
    assert row.question.endswith("Which?\n\nA) London\nB) Paris\nC) Rome") and "one of ABC" in row.question
    french = checked_row({"prompt": "Laquelle ?", "verifier": "choice", "answer": "A", "choices": CITIES, "language": "fr"})
    assert french.question.startswith("Réponds")
    assert checked_row({"prompt": "Which?", "verifier": "choice", "answer": "A"}).question == "Which?"


def test_what_stands_for_the_answer():
    assert checked_row({"prompt": "p", "verifier": "choice", "answer": "Rome", "choices": CITIES}).gold == "C"
    assert checked_row({"prompt": "p", "verifier": "json", "answer": {"é": 1}}).gold == '{"é": 1}'
    assert checked_row({"prompt": "p", "verifier": "json", "schema": True}).gold == ""


def test_a_judge_grades_with_the_rows_own_endpoint_or_that_of_the_environment(monkeypatch):
    def respond(body):
        text = body["messages"][1]["content"]
        code = re.search(r"VERDICT (\w+): ", text)[1]
        return completion(f"VERDICT {code}: {'correct' if 'Blue' in text else 'incorrect'}")

    row = {"prompt": "A colour?", "verifier": "judge", "rubric": "Any colour."}
    with endpoint_server(respond) as server:
        own = checked_row(row | {"endpoint": server.url, "model": "m"})
        assert own.verify("Blue") == 1.0 and own.verify("Bleu") == 0.0
        monkeypatch.setenv("SPOUTNIK_JUDGE_URL", server.url)
        monkeypatch.setenv("SPOUTNIK_JUDGE_MODEL", "other")
        monkeypatch.setenv("SPOUTNIK_JUDGE_KEY", "secret")
        assert checked_row(row).verify("Blue") == 1.0
    assert [body["model"] for _, body in server.requests] == ["m", "m", "other"]
    assert [headers.get("Authorization") for headers, _ in server.requests] == [None, None, "Bearer secret"]


def test_a_judge_that_nobody_names(monkeypatch):
    monkeypatch.delenv("SPOUTNIK_JUDGE_URL", raising=False)
    with pytest.raises(UserError, match="give the row 'endpoint' and 'model', or set SPOUTNIK_JUDGE_URL"):
        checked_row({"prompt": "p", "verifier": "judge", "rubric": "r"}).verify("x")


@pytest.mark.parametrize("row, sentence", [
    ([], "must be an object"), ("x", "must be an object"), (None, "must be an object"),
    ({"prompt": "p", "answer": "a"}, "the key 'verifier' is missing. Add it: one of math, choice"),
    ({"prompt": "p", "answer": "a", "verifier": "maths"},
     "verifier = 'maths': must be one of math, choice, exact, regex, numeric, code, "
     "json, judge. Did you mean 'math'?"),
    ({"prompt": "p", "answer": "a", "verifier": 7}, "verifier = 7: must be one of"),
    ({"answer": "a", "verifier": "exact"}, "the key 'prompt' is missing"),
    ({"prompt": "p", "verifier": "exact"}, "the key 'answer' is missing"),
    ({"prompt": " ", "answer": "a", "verifier": "exact"}, "prompt = ' '"),
    ({"prompt": "p", "answer": "", "verifier": "exact"}, "answer = ''"),
    ({"prompt": "p", "answer": ["a"], "verifier": "exact"}, "answer = ['a']"),
    ({"prompt": "p", "answer": True, "verifier": "exact"}, "answer = True"),
    ({"prompt": "p", "anwser": "a", "verifier": "exact"}, "unknown key 'anwser'. Did you mean 'answer'?"),
    ({"prompt": "p", "answer": "a", "verifier": "exact", "unit": "m"}, "unknown key 'unit'"),
    ({"prompt": "p", "answer": "a", "verifier": "exact", "split": "test"}, "split = 'test': must be 'train' or 'held_out'"),
    ({"prompt": "p", "answer": "a", "verifier": "exact", "language": "English"}, "language = 'English'"),
    ({"prompt": "p", "answer": "(", "verifier": "regex"}, "The pattern '('"),
    ({"prompt": "p", "answer": "five", "verifier": "numeric"}, "answer = 'five': is no number"),
    ({"prompt": "p", "answer": 5, "verifier": "numeric", "absolute_tolerance": -1}, "absolute_tolerance = -1"),
    ({"prompt": "p", "answer": "E", "verifier": "choice"}, "answer = 'E': must be one of the letters ABCD."),
    ({"prompt": "p", "answer": "AB", "verifier": "choice"}, "answer = 'AB': must be one of the letters ABCD."),
    ({"prompt": "p", "answer": "Oslo", "verifier": "choice", "choices": CITIES},
     "must be one of the letters ABC or of the choices"),
    ({"prompt": "p", "answer": "A", "verifier": "choice", "choices": ["B", "A"]}, "is a letter, and the text of the choice B"),
    ({"prompt": "p", "answer": "A", "verifier": "choice", "choices": ["x"]}, "choices = ['x']"),
    ({"prompt": "p", "verifier": "json"}, "the key 'schema' is missing, or 'answer'"),
    ({"prompt": "p", "verifier": "json", "schema": {"type": "x"}}, "The JSON schema is none"),
    ({"prompt": "p", "verifier": "json", "schema": {"$ref": "http://a/b"}}, "nothing is fetched"),
    ({"prompt": "p", "verifier": "judge"}, "the key 'rubric' is missing"),
    ({"prompt": "p", "verifier": "judge", "rubric": "r", "compare": True}, "compare = true needs an answer"),
    ({"prompt": "p", "verifier": "judge", "rubric": "r", "compare": True, "answer": "a", "votes": 3}, "make it an even number"),
    ({"prompt": "p", "verifier": "code"}, "the key 'tests' is missing")])
def test_rows_that_are_wrong(row, sentence):
    with pytest.raises(UserError) as error:
        checked_row(row)
    assert sentence in str(error.value) and not str(error.value).endswith("..")


def test_all_verifiers_of_the_documentation_are_there():
    assert list(VERIFIERS) == "math choice exact regex numeric code json judge".split()


def test_a_percentage_that_the_prompt_asks_for_may_come_with_its_sign():
    row = {"prompt": "What percentage of the cars are red?", "verifier": "math", "answer": "20"}
    assert checked_row(row).verify(r"\boxed{20\%}") == 1.0 and checked_row(row).verify(r"\boxed{0.2}") == 0.0
    assert checked_row(row | {"prompt": "How many cars are red?"}).verify(r"\boxed{20\%}") == 0.0
