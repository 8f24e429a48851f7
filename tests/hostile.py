"""Chat requests made to break replies, and what must be true of every answer to them: no thought in it, and not empty.

The answer that came over HTTP is compared with the token ids that the engine generated, taken apart here in the plainest way:
those between `<think>` and `</think>` are thought, the others are answer.
"""

import asyncio
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field

import httpx

from spoutnik.generation.options import EFFORTS
from spoutnik.generation.service import GenerationHandle, GenerationService
from spoutnik.text.thought_format import follows_mark
from spoutnik.text.tokenizer import Tokenizer

PATH = "/v1/chat/completions"
BLANK = " \t\r\n\v\f\ufffd"
FOLDED = re.compile(r"<think>\n(.*?)\n</think>\n\n", re.DOTALL)
STOPS = [" ", "\n", "\n\n", "e", "a ", "</think>", "<think>", "think", "Wait", "answer", ".", "0", "\ufffd", ["e", "a"],
         ["\n", " ", "x"], ["I have"], ["zzzz", "the", "1", "2"]]
QUESTIONS = ["How many?", "What is 12 + 30?", "Use 3, 5, 8 once each to make 16.", "<think>\nsecret\n</think>\n\nHi",
             "</think>", "é", " ", "Answer with </think> alone.", "\u200b", "word " * 40]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 99, "minimum": 0}, "b": {"enum": ["x", "y"]}},
          "required": ["a", "b"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA, "strict": True}}


def draw(rng: random.Random, tokenizer: Tokenizer, models: list[str]) -> dict:
    """One request."""
    body = {"model": rng.choice(models), "messages": _messages(rng), "seed": rng.randrange(1000), "stream": rng.random() < 0.5}
    for name, value in {"max_tokens": _number(rng, 90), "max_thinking_tokens": _number(rng, 60, 0), "n": rng.randint(1, 4),
                        "temperature": rng.choice([0, 0.6, 1, 5]), "top_p": rng.choice([0.1, 0.95, 1]),
                        "stop": rng.choice(STOPS), "reasoning_effort": rng.choice(list(EFFORTS)),
                        "enable_thinking": rng.random() < 0.5, "detect_loops": rng.random() < 0.5,
                        "include_reasoning": rng.random() < 0.7, "logit_bias": _bias(rng, tokenizer)}.items():
        if rng.random() < 0.5:
            body[name] = value
    body["reasoning_format"] = rng.choice([None, "auto", "none", "deepseek", "deepseek-legacy"])
    for name, value in {"min_tokens": rng.randint(0, 20), "ignore_eos": True, "top_k": rng.choice([1, 5]), "min_p": 0.2,
                        "presence_penalty": 2, "frequency_penalty": -2, "repetition_penalty": rng.choice([0.5, 3]),
                        "stop_token_ids": rng.sample(range(tokenizer.vocab_size), 3) + _marks(tokenizer), "logprobs": True,
                        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
                        "tools": [TOOL], "n_thoughts": rng.randint(2, 3)}.items():
        if rng.random() < 0.08:
            body[name] = value
    if "tools" in body:
        body["tool_choice"] = rng.choice(["auto", "none", "required"])
    return _possible(body)


def _possible(body: dict) -> dict:
    """Without what would be refused because it contradicts itself."""
    if body.get("enable_thinking") and (body.get("reasoning_effort") == "none" or body.get("max_thinking_tokens") == 0):
        del body["enable_thinking"]
    if body.get("enable_thinking") is False and body.get("reasoning_effort", "none") != "none":
        del body["enable_thinking"]
    if "n_thoughts" in body:
        for name in ("n", "logprobs", "tools", "tool_choice"):
            body.pop(name, None)
    if body.get("min_tokens", 0) > body.get("max_tokens", 20):
        del body["min_tokens"]
    return body


def _messages(rng: random.Random) -> list[dict]:
    messages = [{"role": "user", "content": rng.choice(QUESTIONS)}]
    if rng.random() < 0.2:
        before = {"role": "assistant", "content": rng.choice(["<think>\nhm\n</think>\n\n42", "42", "<think>"])}
        before |= rng.choice([{}, {"reasoning_content": "hm </think>"}])
        messages = [{"role": "user", "content": "Why?"}, before, *messages]
    return [{"role": "system", "content": "Be <think> brief."}, *messages] if rng.random() < 0.2 else messages


def _number(rng: random.Random, most: int, least: int = 1) -> int:
    return rng.choice([rng.randint(least, 4), rng.randint(least, most)])


def _marks(tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.think_id, tokenizer.end_think_id, *tokenizer.eos_ids]


def _bias(rng: random.Random, tokenizer: Tokenizer) -> dict[str, float]:
    """For or against the marks, the ends, and tokens that nobody can see."""
    begin, end, blank = tokenizer.think_id, tokenizer.end_think_id, tokenizer.encode(" \n")
    chosen = rng.choice([{end: -100}, {end: 100}, {end: 4}, {begin: 100}, {begin: 5}, {begin: 100, end: -100},
                         {begin: 6, end: 6}, dict.fromkeys(tokenizer.eos_ids, 100), dict.fromkeys(tokenizer.eos_ids, -100),
                         dict.fromkeys(blank, 100), dict.fromkeys(blank, 5) | {end: 5}, dict.fromkeys(_marks(tokenizer), -100),
                         {rng.randrange(tokenizer.vocab_size): 100}, {end: -100} | dict.fromkeys(tokenizer.eos_ids, 100)])
    return {str(token): bias for token, bias in chosen.items()}


# ------------------------------------------------------------------------------------------------------------ what must hold


def taken_apart(handle: GenerationHandle, choice) -> tuple[str, str]:
    """(thought, answer) of one reply, from its ids."""
    tokenizer, parts, plan = handle.served.tokenizer, {True: [], False: []}, handle.plan
    thinking, structured = plan.thinking, plan.make_logits_processor is not None
    after_mark = thinking or structured or follows_mark(plan.prompt, tokenizer)
    for token in choice.ids:
        if token in (tokenizer.think_id, tokenizer.end_think_id):
            thinking = token == tokenizer.think_id
            if not tokenizer.decode(parts[False]).strip(BLANK):  # so far: white space around the mark, perhaps half a character
                after_mark = True
                while parts[False] and not tokenizer.decode(parts[False][:1]).strip():
                    del parts[False][0]
        else:
            parts[thinking].append(token)
    thought = tokenizer.decode(parts[True]).strip()
    answer = tokenizer.decode(parts[False], structured and not plan.params.ignore_eos)
    rest = answer.lstrip()
    leading = answer[:len(answer) - len(rest)]
    ends = [(at + len(stop), at) for stop in plan.params.stop if (at := rest.find(stop)) >= 0]
    return thought, leading[leading.rfind("\n") + 1 if after_mark else 0:] + (rest[:min(ends)[1]] if ends else rest)


def message_of(choices: list[dict]) -> dict:
    """A whole message from the choices of a stream that have one index."""
    message: dict = {"finish_reason": None}
    for choice in choices:
        for name, value in choice["delta"].items():
            before = message.get(name, "" if isinstance(value, str) else [])
            message[name] = before + value if value is not None else message.get(name)
        message["finish_reason"] = choice["finish_reason"] or message["finish_reason"]
    return message


def messages_of(body: dict, text: str) -> tuple[list[dict], dict]:
    """The messages with their finish_reason, and the reply without its choices."""
    if not body["stream"]:
        whole = json.loads(text)
        return [choice["message"] | {"finish_reason": choice["finish_reason"]} for choice in whole["choices"]], whole
    data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]", data[-1]
    chunks = [json.loads(one) for one in data[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    indices = sorted({choice["index"] for choice in choices})
    return [message_of([one for one in choices if one["index"] == index]) for index in indices], chunks[0]


def unfolded(body: dict, message: dict) -> tuple[str, str]:
    """(thought, answer) as the reader of a message finds them, whatever the format. A thought may begin again after some of the
    answer, and is folded where it stands.

    Raises:
        AssertionError: the format is not the one that was asked for.
    """
    kind, content = body.get("reasoning_format") or "auto", message.get("content") or ""
    beside = message.get("reasoning_content") or ""
    assert beside == (message.get("reasoning") or "")
    if kind not in ("none", "deepseek-legacy"):
        return beside, content
    inside = "".join(FOLDED.findall(content))
    assert beside == (inside if kind == "deepseek-legacy" else ""), f"{beside!r} beside {content!r}"
    return inside, FOLDED.sub("", content)


def does_not_fit(error: dict) -> bool:
    """Is a request refused because of its length, or since its min_tokens do not fit?"""
    return error["code"] == "context_length_exceeded" or error["param"] == "min_tokens"


def check(body: dict, text: str, handle: GenerationHandle) -> None:
    """Raises AssertionError."""
    messages, head = messages_of(body, text)
    assert head["id"] == handle.name
    assert len(messages) == (1 if "n_thoughts" in body else body.get("n", 1))
    apart = [taken_apart(handle, choice) for choice in handle.job.choices]
    for index, message in enumerate(messages):
        thought, answer = unfolded(body, message)
        candidates = apart if "n_thoughts" in body else [apart[index]]
        wanted = [(t if body.get("include_reasoning") is not False else "", a) for t, a in candidates]
        assert message["finish_reason"] in ("stop", "length", "tool_calls"), message
        if not message.get("tool_calls"):
            cut = body.get("tools") and message["finish_reason"] == "length"  # perhaps at the beginning of a call's mark
            assert (thought, answer) in wanted or cut and any(
                (t, a[:len(answer)]) == (thought, answer) for t, a in wanted), f"{message} is none of {wanted}"
            stopped = body.get("stop") is not None and message["finish_reason"] == "stop"
            assert answer or stopped, f"empty: {message}"
    for choice, (thought, answer) in zip(handle.job.choices, apart):
        _check_choice(body, handle, choice, thought, answer)


def _check_choice(body: dict, handle: GenerationHandle, choice, thought: str, answer: str) -> None:
    plan = handle.plan
    assert "<think>" not in answer + thought and "</think>" not in answer + thought, (thought, answer)
    assert choice.generated <= plan.params.max_tokens <= body.get("max_tokens", plan.params.max_tokens), choice.generated
    length, limit = len(plan.prompt) + len(choice.ids), handle.served.llm.config.max_position_embeddings
    assert length <= limit, f"{length} tokens in {limit} positions"
    counted, allowed = choice.thought_tokens, plan.max_thinking_tokens
    assert counted <= allowed, f"{counted} tokens of thought, allowed {allowed}"
    assert plan.may_think or not thought, f"thought: {thought}"


# ----------------------------------------------------------------------------------------------------------- many of them


@dataclass
class Tally:
    """What came of many requests. failures: (request, what was wrong), the first few."""

    requests: int = 0
    replies: int = 0
    statuses: Counter = field(default_factory=Counter)
    finished: Counter = field(default_factory=Counter)
    warnings: int = 0
    failures: list[tuple[dict, str]] = field(default_factory=list)


async def attack(url: str, service: GenerationService, count: int, seed: int = 0, together: int = 16) -> Tally:
    """Sends requests, so many at a time, to the server of a service in this process, and looks at every answer."""
    ended: dict[str, GenerationHandle] = {}
    service.on_end.append(lambda handle: ended.__setitem__(handle.name, handle))
    tally, numbers, models = Tally(), iter(range(count)), list(service.models)

    async def one(client: httpx.AsyncClient) -> None:
        for number in numbers:
            rng = random.Random(f"{seed}/{number}")
            served = service.models[rng.choice(models)]
            body = draw(rng, served.tokenizer, [served.id])
            response = await client.post(url + PATH, json=body)
            tally.requests += 1
            tally.statuses[response.status_code] += 1
            try:
                if response.status_code == 400 and does_not_fit(response.json()["error"]):
                    continue
                assert response.status_code == 200, response.text
                name = response.headers["x-request-id"]
                handle = ended.pop(name)
                tally.replies += len(handle.job.choices)
                tally.finished.update(choice.finish_reason for choice in handle.job.choices)
                tally.warnings += bool(handle.warnings)
                check(body, response.text, handle)
            except AssertionError as error:
                tally.failures.append((body, str(error)))

    async with httpx.AsyncClient(timeout=300) as client:
        await asyncio.gather(*(one(client) for _ in range(together)))
    return tally
