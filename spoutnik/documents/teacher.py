"""The teacher: a model behind an OpenAI-compatible endpoint, or one that our engine runs. It is asked one message at a time,
many at once, and what it answers goes into the journal as it arrives."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from spoutnik.documents.journal import Journal, TeacherReply
from spoutnik.endpoint import Endpoint, EndpointRequest
from spoutnik.endpoint_wire import EndpointReply
from spoutnik.engine.outputs import CompletionOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.evals.models import LocalModel
from spoutnik.files import sha256_json
from spoutnik.tasks.prompt_styles import Chat, Prompt
from spoutnik.text.thought import read_reply

_ALTERNATIVES = 5  # likeliest tokens that are looked at for yes and no; what every endpoint gives that gives any
_LEAST_ROOM = 8  # tokens of a reply
TOP_P = 0.95  # R1's


@dataclass(frozen=True)
class Ask:
    """One message. max_tokens: of the whole reply, thought included. yes_no: the reply is to be one of these words, and its
    probability is wanted."""

    text: str
    max_tokens: int
    temperature: float = 0.0
    yes_no: bool = False

    @property
    def seed(self) -> int:
        return int.from_bytes(hashlib.sha256(self.text.encode("utf-8", "backslashreplace")).digest()[:4], "big")


OnReply = Callable[[int, TeacherReply], None]  # (number of the message, its reply)
OnTokens = Callable[[int], None]  # tokens generated since the last call
Progress = Callable[[int, int, int, str], None]  # done, of, tokens, note


class Teacher(Protocol):
    """name: for people and rows. facts: what decides its replies, as plain data."""

    name: str
    facts: Mapping[str, object]

    def ask(self, asks: Sequence[Ask], on_reply: OnReply, on_tokens: OnTokens) -> None:
        """Raises RunError where nothing can be answered any more; what was answered before has been given to `on_reply`."""


class EndpointTeacher:
    """concurrency: requests under way at one time."""

    def __init__(self, endpoint: Endpoint, concurrency: int = 8):
        self.endpoint, self.concurrency, self.name = endpoint, concurrency, endpoint.model
        self.facts = {"endpoint": endpoint.base_url, "model": endpoint.model}

    def ask(self, asks: Sequence[Ask], on_reply: OnReply, on_tokens: OnTokens) -> None:
        requests = [EndpointRequest([{"role": "user", "content": ask.text}], ask.temperature,
                                    TOP_P if ask.temperature else None, ask.max_tokens, ask.seed,
                                    top_logprobs=_ALTERNATIVES if ask.yes_no else None) for ask in asks]

        def keep(number: int, reply: EndpointReply) -> None:
            tokens = reply.usage.completion_tokens or 0
            on_tokens(tokens)
            finished = reply.finish_reason == "stop"
            text = reply.text.strip() if reply.reasoning else Chat().read(reply.text, finished).answer
            yes = yes_probability(reply.logprobs or ()) if asks[number].yes_no else None
            on_reply(number, TeacherReply(text, finished, tokens, yes))

        self.endpoint.complete_all(requests, self.concurrency, keep, lambda number, refusal: on_reply(
            number, TeacherReply("", False, refusal=str(refusal))))


class LocalTeacher:
    """A model that our engine runs; all messages are one batch."""

    def __init__(self, model: LocalModel):
        self.model, self.name = model, model.name
        self.facts = model.facts()

    def ask(self, asks: Sequence[Ask], on_reply: OnReply, on_tokens: OnTokens) -> None:
        numbers, prompts, params = [], [], []
        positions = self.model.llm.config.max_position_embeddings
        for number, ask in enumerate(asks):
            ids = self.model.ids(Prompt((("user", ask.text),)))
            if positions - len(ids) < _LEAST_ROOM:
                on_reply(number, TeacherReply("", False, refusal=f"{len(ids):,} tokens, and the model has {positions:,} "
                                                                 "positions"))
                continue
            numbers.append(number)
            prompts.append(ids)
            params.append(SamplingParams(temperature=float(ask.temperature), top_p=TOP_P, seed=ask.seed,
                                         max_tokens=min(ask.max_tokens, positions - len(ids)),
                                         logprobs=_ALTERNATIVES if ask.yes_no else None))
        self.model.run(prompts, params, lambda index, output: on_reply(
            numbers[index], self._reply(output, asks[numbers[index]])), on_tokens)

    def _reply(self, output: CompletionOutput, ask: Ask) -> TeacherReply:
        if output.finish_reason == "error":
            return TeacherReply("", False, refusal=str(output.stop_reason))
        tokenizer, tokens = self.model.tokenizer, len(output.token_ids)
        reply = read_reply(output.reply_ids, tokenizer, output.finished)
        yes = None
        if ask.yes_no:
            yes = yes_probability((tokenizer.decode([chosen]), {tokenizer.decode([each]): value for each, value in top.items()})
                                  for chosen, top in zip(output.token_ids, output.top_logprobs or ()))
        return TeacherReply(reply.answer.strip(), output.finished, tokens, yes)


def yes_probability(tokens: Iterable[tuple[str, Mapping[str, float]]]) -> float | None:
    """P(yes) / (P(yes) + P(no)) in the last place where one of these words was chosen; None where none was.

    tokens: (the one chosen, log-probabilities of the likeliest ones by their text) of each place.
    """
    for chosen, likeliest in reversed([*tokens]):
        if _word(chosen) in ("yes", "no"):
            shares = {word: sum(math.exp(value) for text, value in likeliest.items() if _word(text) == word)
                      for word in ("yes", "no")}
            return shares["yes"] / (shares["yes"] + shares["no"]) if sum(shares.values()) else None
    return None


def _word(token: str) -> str:
    return token.strip(" \n\t*_.,\"'▁Ġ").lower()


def ask_all(teacher: Teacher, journal: Journal, asks: Sequence[Ask], progress: Progress,
            check: Callable[[TeacherReply], None] = lambda reply: None) -> list[TeacherReply]:
    """The replies to all messages: those that the journal has, and those that are asked now and kept as they arrive.

    check: called with each that arrives, to raise where going on is useless.
    """
    keys = [sha256_json({"teacher": teacher.facts, "top_p": TOP_P, **asdict(ask)}) for ask in asks]
    missing = {key: ask for key, ask in zip(keys, asks) if key not in journal}
    done, generated = len(asks) - len(missing), 0
    waiting = [*missing]

    def keep(number: int, reply: TeacherReply) -> None:
        nonlocal done
        journal.add(waiting[number], reply)
        done += 1
        progress(done, len(asks), generated, "")
        check(reply)

    def count(tokens: int) -> None:
        nonlocal generated
        generated += tokens
        progress(done, len(asks), generated, "")

    if missing:
        progress(done, len(asks), 0, "")
        teacher.ask([*missing.values()], keep, count)
    return [journal[key] for key in keys]
