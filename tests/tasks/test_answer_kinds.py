"""Answers compared as text, by a pattern, as a number, as JSON."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.tasks import answer_kinds, json_answers
from spoutnik.tasks.answer_kinds import close, exact, final_answer, matches, number
from spoutnik.tasks.json_answers import Schema, equals, fits


@pytest.mark.parametrize("answer, result", [
    ("Paris", "Paris"), ("  Paris \n", "Paris"), ("So \\boxed{Lyon}, no: \\boxed{Paris}.", "Paris"),
    ("\\boxed{a{b}c}", "a{b}c"),
    ("\\boxed{\\{a\\}}", "\\{a\\}"), ("\\boxed {x}", "x"), ("I think.\nAnswer: Paris\nBye", "Paris"),
    ("**Answer:** Paris", "Paris"),
    ("The answer is Paris", "Paris"), ("Réponse : Paris", "Paris"), ("Answer: Rome. Answer: Paris", "Paris"),
    ("Answer:\nParis", "Paris"),
    ("\\boxed{Paris", "\\boxed{Paris"), ("", "")])
def test_the_final_answer(answer, result):
    assert final_answer(answer) == result


@pytest.mark.parametrize("gold, answer, options, verdict", [
    ("Paris", "Paris", {}, True), ("Paris", " Paris\n", {}, True), ("Paris", "paris", {}, False),
    ("Paris", "Paris.", {}, False),
    ("Paris", "It is Paris", {}, False), ("Paris", "Paris or London", {}, False), ("Paris", "", {}, False),
    ("Paris", "PARIS", {"ignore_case": True}, True), ("Straße", "STRASSE", {"ignore_case": True}, True),
    ("New York", "New \n York", {}, True), ("New York", "New  York", {"ignore_spacing": False}, False),
    ("New York", "NewYork", {}, False), ("e\u0301", "é", {}, True), ("it's", "it s!", {"ignore_punctuation": True}, True),
    ("Answer: 4", "Answer: 4", {}, True), ("x", "\\boxed{x}", {}, True), ("x", "\\boxed{x} \\boxed{y}", {}, False)])
def test_exact(gold, answer, options, verdict):
    assert exact(gold, answer, **options) is verdict


@pytest.mark.parametrize("pattern, answer, verdict", [
    (r"\d{4}", "1999", True), (r"\d{4}", "1999.", False), (r"\d{4}", "year 1999", False), (r"\d{4}", "Answer: 1999", True),
    (r"(?i)yes|no", "No", True), (r"(?s)a.*b", "a\nb", True), ("", "", True), (r"\p{Lu}+", "ÉA", True)])
def test_patterns_match_the_whole_answer(pattern, answer, verdict):
    assert matches(pattern, answer) is verdict


BACKTRACKING = "^(a|aa)+$"


def test_a_pattern_that_backtracks_without_end_does_not_match():
    assert matches(BACKTRACKING, "aaa") and not matches(BACKTRACKING, "a" * 60 + "!", seconds=0.05)


def test_a_pattern_that_is_none():
    with pytest.raises(UserError, match=r"The pattern '\(a': .*Correct it"):
        matches("(a", "a")


@pytest.mark.parametrize("text, language, value", [
    ("42", "en", "42"), ("-3.50", "en", "-3.5"), ("−7", "en", "-7"), ("+.5", "en", "0.5"), ("1,234,567.8", "en", "1234567.8"),
    ("1.234", "fr", "1.234"), ("3,14", "fr", "3.14"), ("1 234,5", "fr", "1234.5"), ("1\u202f234", "fr", "1234"),
    ("1\\,000", "en", "1000"),
    ("3{,}5", "fr", "3.5"), ("6.02e23", "en", "6.02e23"), ("1.5 \\times 10^{3}", "en", "1500"), ("2·10^-2", "en", "0.02"),
    ("3/4", "en", "0.75"), ("-\\frac{1}{8}", "en", "-0.125"), ("12%", "en", "0.12"), ("12\\%", "en", "0.12"),
    ("$42$", "en", "42"), ("42.", "en", "42"),
    ("５", "en", "5"), ("1e400", "en", None), ("1,23", "en", None), ("1,2345", "en", None), ("12,345", "fr", "12.345"),
    ("1.2.3", "en", None), ("inf", "en", None), ("nan", "en", None), ("4 apples", "en", None), ("", "en", None),
    ("1/0", "en", None),
    ("1/2/3", "en", None), ("0x10", "en", None), ("9" * 500, "en", None), ("1e99999", "en", None), ("- 3", "en", None),
    ("١٢", "en", "12")])
def test_numbers(text, language, value):
    assert number(text, language) == (None if value is None else pytest.approx(answer_kinds.Decimal(value), rel=0, abs=0))


@pytest.mark.parametrize("gold, answer, options, verdict", [
    ("9.81", "9.81", {}, True), ("9.81", "9.810", {}, True), ("9.81", "9.8", {}, False),
    ("9.81", "9.8", {"absolute": 0.01}, True),
    ("0.2", "0.3", {"absolute": 0.1}, True), ("100", "101", {"relative": 0.01}, True),
    ("100", "101.1", {"relative": 0.01}, False),
    ("0", "0.001", {"relative": 0.5}, False), ("5", "The answer is 5.", {}, True), ("5", "4 or 5", {}, False),
    ("5", "5 m/s", {"unit": "m/s"}, True),
    ("5 m/s", "\\boxed{5\\ \\text{m/s}}", {"unit": "m/s"}, True), ("5", "5 km/s", {"unit": "m/s"}, False),
    ("12", "12%", {}, False),
    ("10000000000000001", "10000000000000002", {}, False), ("3,5", "3.5", {"language": "fr"}, True),
    ("1", "", {"absolute": 9}, False)])
def test_numbers_within_a_tolerance(gold, answer, options, verdict):
    assert close(gold, answer, **options) is verdict


@pytest.mark.parametrize("gold, answer, verdict", [
    ({"a": 1, "b": [True, None]}, '{"b": [true, null], "a": 1.0}', True), ([1], "[true]", False), ([0], "[false]", False),
    ("1", "1", False),
    ([1, 2], "[2, 1]", False), ({"a": 1}, '{"a": 1, "a": 1}', False), ({"a": 1}, '```json\n{"a": 1}\n```', True),
    ({"a": 1}, 'First:\n```json\n{"a": 2}\n```\nthen\n```\n{"a": 1}\n```\nDone.', True), ({"a": 1}, 'It is {"a": 1}', False),
    (None, "null", True), (None, "", False), (None, "NaN", False), ({}, "[]", False), ([[]], "[{}]", False),
    ([], "[" * 100_000, False),
    (1, "9" * 10_000, False), ({"a": 1}, "{'a': 1}", False)])
def test_json_values(gold, answer, verdict):
    assert equals(gold, answer) is verdict


PERSON = {"type": "object", "required": ["name"], "additionalProperties": False,
          "patternProperties": {"^x_": {"type": "integer"}},
          "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "tags": {"type": "array", "uniqueItems": True},
                         "friend": {"$ref": "#"}}}


@pytest.mark.parametrize("answer, verdict", [
    ('{"name": "Ada"}', True), ('{"name": "ada"}', False), ("{}", False), ('{"name": "Ada", "age": 3}', False),
    ('{"name": "Ada", "x_a": 3}', True),
    ('{"name": "Ada", "x_a": "3"}', False), ('{"name": "Ada", "friend": {"name": "Bob"}}', True),
    ('{"name": "Ada", "friend": {}}', False),
    ('{"name": "Ada", "tags": [1, true, "1", [1]]}', True), ('{"name": "Ada", "tags": [{"a": 1}, {"a": 1.0}]}', False),
    ('```json\n{"name": "Ada"}\n```', True), ("Ada", False), ("", False)])
def test_json_of_a_schema(answer, verdict):
    assert fits(Schema(PERSON), answer) is verdict


def test_a_check_that_does_not_end_is_a_no():
    backtracking = Schema({"pattern": BACKTRACKING}, seconds=0.05)
    assert fits(backtracking, '"aa"') and not fits(backtracking, json.dumps("a" * 60 + "!"))
    by_name = Schema({"patternProperties": {BACKTRACKING: False}}, seconds=0.05)
    assert fits(by_name, '{"x": 1}') and not fits(by_name, json.dumps({"a" * 60 + "!": 1}))
    endless = Schema({"$ref": "#"}, seconds=0.05)
    assert not fits(endless, "1")
    branching = {"$defs": {"n": {"anyOf": [{"minItems": 1, "items": {"$ref": "#/$defs/n"}}] * 2, "type": "array"}},
                 "$ref": "#/$defs/n"}
    assert not fits(Schema(branching, seconds=0.05), "[" * 30 + "]" * 30)
    assert not fits(Schema(PERSON), '{"friend":' * 5_000 + "1" + "}" * 5_000)


@pytest.mark.parametrize("schema, sentence", [
    ({"$ref": "http://127.0.0.1:1/schema.json"},
     "refers to 'http://127.0.0.1:1/schema.json', which is not in it; nothing is fetched"),
    ({"properties": {"a": {"$ref": "other.json"}}}, "refers to 'other.json'"),
    ({"$ref": "#/$defs/no"}, "refers to '#/$defs/no'"),
    ({"type": "strin"}, "'strin' is not valid"), ({"pattern": "("}, "'('"), ([], "must be an object"),
    (None, "must be an object"),
    ({"$schema": []}, "must be an object"), ({"patternProperties": {"a": {}}, "unevaluatedProperties": False},
                                             "Use additionalProperties")])
def test_schemas_that_are_refused(schema, sentence):
    with pytest.raises(UserError) as error:
        Schema(schema)
    assert sentence in str(error.value)


def test_a_property_named_like_a_reference_is_none():
    assert fits(Schema({"properties": {"$ref": {"type": "string"}}}), '{"$ref": "x"}')


@given(st.text(max_size=100) | st.text(alphabet="0123456789.,eE+-/%$\\{} frac{}boxed", max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_answer_raises(answer):
    assert exact(answer, answer)
    close("1", answer, absolute=0.5, unit="m")
    matches("a+", answer)
    equals({}, answer)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-10**9, max_value=10**9, places=3))
def test_numbers_survive_writing_and_reading(value):
    assert number(f"{value:,}") == value and number(f"{value:,}".replace(",", " ").replace(".", ","), "fr") == value


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))
def test_json_values_equal_themselves(value):
    assert equals(value, json.dumps(value)) and equals(value, f"```json\n{json.dumps(value, indent=1)}\n```")
    assert json_answers.fits(Schema(True), json.dumps(value)) and not fits(Schema(False), json.dumps(value))


@pytest.mark.parametrize("piece", ["\\boxed{", "Answer: ", "1,000", "a", "[", "{\"a\":", "```json\n", "\n", "\x00"])
def test_a_megabyte_of_anything_is_wrong(piece):
    answer = piece * (1_000_000 // len(piece))
    assert not exact("b", answer) and not close("1", answer, absolute=9) and not matches("b+", answer)
    assert not equals(7, answer) and not fits(Schema(PERSON), answer)
