"""The switches of the thought, of whichever API: what they come to, and which contradict each other."""

import pytest

from spoutnik.serve.api.chat_request import ChatRequest
from spoutnik.serve.api.thinking import ThoughtSwitches
from spoutnik.serve.errors import ApiError

ASK = [{"role": "user", "content": "a"}]


def switches(**fields) -> ThoughtSwitches:
    return ChatRequest(messages=ASK, **fields).thought_switches


@pytest.mark.parametrize("fields, enabled, effort, budget", [
    ({}, None, None, None), ({"reasoning_effort": "low"}, None, "low", None),
    ({"reasoning_effort": "default"}, None, None, None),
    ({"think": True}, True, None, None), ({"think": False}, False, None, None), ({"think": "high"}, None, "high", None),
    ({"thinking": {"type": "enabled"}}, True, None, None), ({"thinking": {"type": "disabled"}}, False, None, None),
    ({"thinking": {"type": "adaptive"}}, None, None, None), ({"thinking": True}, True, None, None),
    ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, True, None, 2048),
    ({"reasoning": {"effort": "medium"}}, None, "medium", None), ({"reasoning": {"max_tokens": 7}}, None, None, 7),
    ({"reasoning": {"enabled": True}}, True, None, None), ({"reasoning": {"effort": "none"}}, None, "none", None),
    ({"reasoning_budget": -1}, None, None, None), ({"reasoning_budget": 0}, None, None, 0),
    ({"thinking_budget": 64.0}, None, None, 64), ({"thinking_token_budget": 9, "max_thinking_tokens": 9}, None, None, 9),
    ({"enable_thinking": False}, False, None, None), ({"chat_template_kwargs": {"enable_thinking": False}}, False, None, None),
    ({"chat_template_kwargs": {"thinking": True}}, True, None, None),
    ({"chat_template_kwargs": {"reasoning_effort": "low", "thinking_budget": 5}}, None, "low", 5),
    ({"chat_template_kwargs": {"thinking": False}, "enable_thinking": False, "think": False}, False, None, None),
    ({"reasoning_effort": "high", "reasoning_budget": 100}, None, "high", 100),
], ids=str)
def test_all_dialects_say_the_same(fields, enabled, effort, budget):
    heard = switches(**fields)
    assert (heard.enabled, heard.effort, heard.budget) == (enabled, effort, budget)
    assert not {"enable_thinking", "thinking"} & heard.variables.keys()


@pytest.mark.parametrize("fields, param", [
    ({"think": True, "thinking": {"type": "disabled"}}, "think"),
    ({"reasoning_effort": "low", "think": "high"}, "reasoning_effort"),
    ({"enable_thinking": False, "reasoning_effort": "high"}, "reasoning_effort"),
    ({"reasoning_effort": "none", "thinking": {"type": "enabled"}}, "thinking.type"),
    ({"enable_thinking": True, "chat_template_kwargs": {"thinking": False}}, "enable_thinking"),
    ({"thinking": {"type": "enabled", "budget_tokens": 5}, "reasoning": {"max_tokens": 6}}, "thinking.budget_tokens"),
    ({"max_thinking_tokens": 5, "reasoning_budget": 6}, "max_thinking_tokens"),
    ({"chat_template_kwargs": {"thinking": "yes"}}, "chat_template_kwargs.thinking"),
], ids=str)
def test_what_contradicts_itself_is_refused(fields, param):
    with pytest.raises(ApiError) as refused:
        switches(**fields)
    assert refused.value.status == 400 and refused.value.param == param


@pytest.mark.parametrize("fields", [{"include_reasoning": False}, {"reasoning": {"exclude": True}},
                                    {"thinking": {"type": "enabled", "display": "omitted"}}], ids=str)
def test_a_thought_may_be_hidden(fields):
    assert not switches(**fields).shown and switches().shown
