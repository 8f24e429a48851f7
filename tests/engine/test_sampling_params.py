"""What a request may ask for, and the sentences that refuse the rest."""

import re

import pytest

from spoutnik import SamplingParams
from spoutnik.errors import UserError


def test_the_defaults_are_r1_s():
    params = SamplingParams()
    assert (params.temperature, params.top_p, params.max_tokens, params.n) == (0.6, 0.95, 256, 1)
    assert not params.changes_logits and params.stop == () and params.stop_token_ids == () and params.logit_bias == {}


def test_one_stop_text_is_a_list_of_one():
    assert SamplingParams(stop="END").stop == ("END",)
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")


@pytest.mark.parametrize("top_k, tokens", [(-1, 0), (0, 0), (7, 7)])
def test_top_k_is_off_at_0_and_minus_1(top_k, tokens):
    assert SamplingParams(top_k=top_k).top_tokens == tokens


@pytest.mark.parametrize("name, value", [
    ("n", 0), ("n", 1.5), ("n", True), ("temperature", -0.1), ("temperature", 11), ("temperature", float("nan")),
    ("temperature", "hot"), ("top_p", 0), ("top_p", 1.1), ("top_p", float("nan")), ("top_k", -2), ("min_p", -0.1),
    ("min_p", 1.5), ("repetition_penalty", 0), ("repetition_penalty", -1), ("presence_penalty", 2.5),
    ("frequency_penalty", -3), ("seed", -1), ("seed", 2 ** 63), ("seed", 0.5), ("max_tokens", 0), ("max_tokens", None),
    ("min_tokens", -1), ("logprobs", -1), ("prompt_logprobs", 1001), ("ignore_eos", 1), ("skip_special_tokens", None),
    ("include_stop_str_in_output", "yes")])
def test_impossible_values_are_named(name, value):
    with pytest.raises(UserError, match=re.escape(f"{name} = {value!r}: must")):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("name, value, sentence", [
    ("stop", "", "stop = '': must be a text or several, none of them empty"),
    ("stop", ["a", 3], r"stop = \['a', 3\]: must be a text"),
    ("stop_token_ids", [2, -1], r"stop_token_ids = \[2, -1\]: must be token ids"),
    ("logit_bias", [1], r"logit_bias = \[1\]: must be a dictionary"),
    ("logit_bias", {"a": 1.0}, "logit_bias: the key 'a' is not a token id"),
    ("logit_bias", {1: 101}, "logit_bias: 1: 101 must be a number in -100..100"),
    ("logit_bias", {1: float("nan")}, "logit_bias: 1: nan must be a number")])
def test_impossible_texts_and_tokens_are_named(name, value, sentence):
    with pytest.raises(UserError, match=sentence):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("contradiction, sentence", [
    ({"min_tokens": 5, "max_tokens": 4}, "min_tokens = 5: more than max_tokens = 4"),
    ({"include_stop_str_in_output": True}, "there is no stop text to include")])
def test_contradictions_are_refused(contradiction, sentence):
    with pytest.raises(UserError, match=sentence):
        SamplingParams(**contradiction)


def test_parameters_are_given_by_name():
    with pytest.raises(TypeError):
        SamplingParams(0.6, 0.95)
