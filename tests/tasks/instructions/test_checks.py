"""The 25 instruction types: what obeys and what does not, strictly and loosely, and settings that are wrong."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.tasks.instructions import TYPES, Following, check, follows, instruction

ENGLISH = "the garden behind the house is small but it feeds the whole family"
FRENCH = "Il fait beau aujourd'hui et nous allons au marché pour acheter du pain."
RUSSIAN = "Сегодня хорошая погода, и мы идём на рынок за хлебом."
# (type, settings, responses that obey, responses that do not)
CASES = (
    ("keywords:existence", {"keywords": ["sun", "C++ (fast)"]}, ["SUNNY days of c++ (fast) code"],
     ["sun", "sun and C++ fast", ""]),
    ("keywords:frequency", {"relation": "at least", "keyword": "tea", "frequency": 2}, ["Tea, steam"], ["tea", "coffee"]),
    ("keywords:frequency", {"relation": "less than", "keyword": "a.b", "frequency": 1}, ["axb"], ["say a.b"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "C++"]}, ["concatenate", "C+"], ["A Cat.", "I like C++!", "cat"]),
    ("keywords:letter_frequency", {"let_relation": "at least", "letter": "Q", "let_frequency": 3}, ["qQq"], ["qq", "aaa"]),
    ("keywords:letter_frequency", {"let_relation": "less than", "letter": "!", "let_frequency": 2}, ["a!"], ["!!"]),
    ("language:response_language", {"language": "fr"}, [FRENCH], [RUSSIAN, ENGLISH, "42", "..."]),
    ("language:response_language", {"language": "ru"}, [RUSSIAN], [FRENCH]),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 3}, ["One. Two? Three!"],
     ["One. Dr. Two.", "a\nb\nc"]),
    ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 2}, ["At 3.5 p.m. it rains"],
     ["No. Yes."]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "***\na *** b\n***"],
     ["a", "a\n\nb", "a***b***c", "a *** *** b", "a ***", "***"]),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 3}, ["it's me", "a b c"], ["a b", "a - b"]),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 3}, ["a b"], ["a b c"]),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
     ["a\n\n'then' b", "a\n\nThen, b\n\n"], ["a\n\nb then", "then\n\na", "a\n\nthen\n\nb", "then", "a\n\n\n\nthen"]),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b]", "[]x[y]"], ["[a]", "[a\n]", "[[a]", "[[["]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye\n\np. s. more", "P.S. x"], ["PS more", "Bye"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["Bye\nP.P.S. x", "p. p. s"], ["P.S. x"]),
    ("detectable_content:postscript", {"postscript_marker": "N.B."}, ["n.b. x"], ["nxbx"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n* b", "x\n - a\n\n*b"],
     ["* a", "- a\n- b\n- c", "**a**\n- b"]),
    ("detectable_format:constrained_response", {}, ["My answer is yes.", "Hm. My answer is maybe."],
     ["My answer is yes", "yes"]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* and **b**", "*a* *b*"],
     ["*a*", "** ** *a*", "*a\nb* *c*", "***"]),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 2}, ["Day 1\na\nDay 2\nb", "Day1 Day2"],
     ["Day 1", "Day one Day two", "day 1 day 2"]),
    ("detectable_format:json_format", {}, ['{"a": [1]}', '```json\n{"a": 1}\n```', "```\n[]\n```", "3"],
     ["{'a': 1}", 'So: {"a": 1}', "```json\n```", "[" * 100_000, "9" * 10_000]),
    ("detectable_format:title", {}, ["<<A title>>\ntext", "x <<<b>>> y"],
     ["<<>>", "<< >>", "<<a\n>>", "<a>", ">>a<<", "<<>", "<<<>>>"]),
    ("combination:two_responses", {}, ["a ****** b", "******\na******b\n******"],
     ["a", "a ****** a", "a******b******c", "a******"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi. "}, [" say HI. Hi!"], ["Hi! Say hi.", "Say"]),
    ("startend:end_checker", {"end_phrase": "The end."}, ["So. THE END.", '"the end." '], ["The end", "The end. Yes"]),
    ("startend:quotation", {}, [' "a" ', '""'], ['"', "'a'", '"a', 'a"', "“a”"]),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2},
     ["NOW, U.S. law", "I'M here", "(A) \"B\""], ["NOW", "Now Then", "1 2 3", "WELL-KNOWN"]),
    ("change_case:capital_word_frequency", {"capital_relation": "less than", "capital_frequency": 1}, ["none here"],
     ["ONE here"]),
    ("change_case:english_capital", {}, [ENGLISH.upper()], [ENGLISH, FRENCH.upper(), "123"]),
    ("change_case:english_lowercase", {}, [ENGLISH], [ENGLISH.capitalize(), FRENCH.lower(), "123"]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
)
VALID = {name: kwargs for name, kwargs, *_ in CASES}
HOSTILE = ("\x00", "\ud83d", "\u202e\u200f,", "[" * 50_000, "<<" * 50_000, "\n" * 50_000 + "a", "* " * 50_000, "'" * 50_000,
           "a. " * 50_000, "。" * 50_000, "{\"a\":" * 50_000, "١٢٣", "ﬃ İ ß", "```" * 9, "9" * 5_000)


def test_all_types_of_the_paper_are_there_and_tried():
    assert len(TYPES) == 25 and VALID.keys() == TYPES.keys()


@pytest.mark.parametrize("name, kwargs, obeying, others", CASES,
                         ids=[f"{number}-{case[0]}" for number, case in enumerate(CASES)])
def test_what_obeys_and_what_does_not(name, kwargs, obeying, others):
    assert [response for response in obeying if not check(name, kwargs, response, "")] == []
    assert [response for response in others if check(name, kwargs, response, "")] == []


@pytest.mark.parametrize("name", TYPES)
def test_a_blank_response_obeys_nothing(name):
    assert not check(name, VALID[name], "", "") and not check(name, VALID[name], " \n\t", "")


def test_a_region_says_nothing_of_a_language():
    assert check("language:response_language", {"language": "zh-CN"}, "今天天气很好，我们去市场买面包和牛奶。")


def test_the_prompt_is_what_is_repeated_where_nothing_else_is_given():
    assert check("combination:repeat_prompt", {}, "Say hi. Hi!", "Say hi.")
    assert not check("combination:repeat_prompt", {}, "Hi!", "Say hi.")
    assert not check("combination:repeat_prompt", {"prompt_to_repeat": "Say ho."}, "Say hi. Hi!", "Say hi.")


ROW = {"prompt": "p", "instruction_id_list": ["punctuation:no_comma", "startend:quotation", "startend:end_checker"],
       "kwargs": [{"num_words": None}, {}, {"end_phrase": "bye"}]}


@pytest.mark.parametrize("response, strict, loose", [
    ('"Bye"', (True, True, True), (True, True, True)),
    ('Sure, here it is:\n"Bye"', (False, False, True), (True, True, True)),
    ('"Bye"\nAnything else, sir?', (False, False, False), (True, True, True)),
    ('Sure, here:\n"Bye"\n\nWell, so.', (False, False, False), (True, True, True)),
    ('**"Bye"**', (True, False, False), (True, True, True)),
    ('a, b\n"Bye", she said', (False, False, False), (False, False, False)),
    ('one, two', (False, False, False), (False, False, False)),  # without its only line nothing is left
])
def test_strict_and_loose_verdicts(response, strict, loose):
    following = follows(ROW, response)
    assert following == Following(strict, loose)
    assert following.prompt_strict == all(strict) and following.prompt_loose == all(loose)


@given(st.one_of(st.text(max_size=300), st.text(alphabet="*#[]<>\n\t .,!?\"'`-{}aA1é。", max_size=300)))
@settings(max_examples=30, deadline=None)
def test_no_response_raises_and_loose_is_never_stricter(response):
    following = follows({"prompt": "p", "instruction_id_list": list(VALID), "kwargs": list(VALID.values())}, response)
    assert all(loose or not strict for strict, loose in zip(following.strict, following.loose, strict=True))
    assert len(following.strict) == 25


@pytest.mark.parametrize("response", HOSTILE, ids=range(len(HOSTILE)))
def test_no_hostile_response_raises(response):
    assert len(follows({"prompt": "p", "instruction_id_list": list(VALID), "kwargs": list(VALID.values())},
                       response).loose) == 25


@pytest.mark.parametrize("name, kwargs, sentence", [
    ("keywords:existance", {}, "There is no instruction 'keywords:existance'. Did you mean 'keywords:existence'?"),
    ("keywords:existence", {}, "The instruction keywords:existence: the key 'keywords' is missing."),
    ("keywords:existence", {"keywords": "sun"}, "keywords = 'sun': "),
    ("keywords:existence", {"keywords": []}, "keywords = []: "),
    ("keywords:existence", {"keywords": [""]}, "keywords.0 = '': "),
    ("length_constraints:number_words", {"relation": "at most", "num_words": 3}, "relation = 'at most': must be 'at least' or"),
    ("length_constraints:number_words", {"relation": "at least", "num_word": 3},
     "unknown key 'num_word'. Did you mean 'num_words'?"),
    ("length_constraints:number_words", {"relation": "at least", "num_words": "many"}, "num_words = 'many': "),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 0}, "num_paragraphs = 0: "),
    ("keywords:letter_frequency", {"let_relation": "at least", "letter": "ab", "let_frequency": 1}, "letter = 'ab': "),
    ("startend:end_checker", {"end_phrase": " "}, "end_phrase = "),
    ("language:response_language", {"language": "klingon"}, "language = 'klingon': must be one of ar, bg, bn"),
    ("combination:repeat_prompt", {}, "prompt_to_repeat = ''")])
def test_wrong_settings_are_told(name, kwargs, sentence):
    with pytest.raises(UserError) as error:
        instruction(name, kwargs)
    assert sentence in str(error.value)


@pytest.mark.parametrize("row, sentence", [
    ({}, "instruction_id_list: must be a list"), ({"instruction_id_list": []}, "instruction_id_list: must be a list"),
    ({"instruction_id_list": "punctuation:no_comma"}, "instruction_id_list: must be a list"),
    ({"instruction_id_list": ["punctuation:no_comma"]}, "kwargs: must be a list with the settings of each of the 1"),
    ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}, {}]}, "kwargs: must be a list"),
    ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [None]}, "kwargs: the settings of an instruction must be an")])
def test_wrong_rows_are_told(row, sentence):
    with pytest.raises(UserError) as error:
        follows(row, "x")
    assert sentence in str(error.value)


def test_numbers_that_a_table_has_turned_into_floats_are_numbers():
    assert check("length_constraints:number_words", json.loads('{"relation": "at least", "num_words": 2.0}'), "a b", "")
