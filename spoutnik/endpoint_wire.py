"""What an OpenAI-compatible endpoint sends: chat completions, errors in the forms that are in use, and when to come back."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Usage:
    """Tokens that the endpoint counted; None where it does not count."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class EndpointReply:
    """What the model wrote. reasoning: the thought, where the endpoint gives it apart from the text. finish_reason: "stop",
    "length" or another word of the endpoint's. attempts: requests that it took. logprobs: of each token the likeliest ones,
    text -> log-probability, where they were asked for and given."""

    text: str
    reasoning: str | None
    finish_reason: str
    usage: Usage
    attempts: int = 1
    logprobs: tuple[tuple[str, dict[str, float]], ...] | None = None


class Failure(Exception):
    """An attempt that failed. transient: another one may succeed. pause: seconds that the endpoint asks to wait."""

    def __init__(self, reason: str, transient: bool, pause: float | None = None):
        super().__init__(reason)
        self.reason, self.transient, self.pause = reason, transient, pause


def read_reply(body: bytes, attempts: int) -> EndpointReply:
    """The reply in an answer. Raises a transient Failure for anything else: proxies and overloaded servers send such."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise Failure(f"the answer is not JSON{_shown(body)}", transient=True) from None
    if isinstance(answer, dict) and answer.get("error") and not answer.get("choices"):
        raise Failure(f"an error with a good status{server_message(body)}", transient=True)
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text, reasoning = _text(message.get("content")), message.get("reasoning_content") or message.get("reasoning")
        usage = answer.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Failure(f"the answer is no chat completion{_shown(body)}", transient=True) from None
    usage = Usage(*(count if isinstance(count, int) and not isinstance(count, bool) else None for count in counts))
    return EndpointReply(text, reasoning if isinstance(reasoning, str) else None, str(choice.get("finish_reason") or "unknown"),
                         usage, attempts, _logprobs(choice.get("logprobs")))


def _logprobs(value: object) -> tuple[tuple[str, dict[str, float]], ...] | None:
    """(token, likeliest tokens in its place) of each token; None where the endpoint gives none in the API's form."""
    try:
        return tuple((token["token"], {each["token"]: float(each["logprob"]) for each in (token, *token["top_logprobs"])})
                     for token in value["content"]) or None
    except (KeyError, TypeError, ValueError):
        return None


def _text(content: object) -> str:
    """A message's text: a string, nothing (the limit fell within the thought), or a list of parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part.get("type") == "text")


def server_message(body: bytes) -> str:
    """What an endpoint says about an error, in the forms that are in use, as the end of a sentence."""
    try:
        answer = json.loads(body)
        error = answer.get("error", answer)
        message = error if isinstance(error, str) else error.get("message") or answer.get("detail")
    except (ValueError, AttributeError, RecursionError):
        return _shown(body)
    return f", {' '.join(message.split())[:300]!r}" if isinstance(message, str) and message.strip() else _shown(body)


def _shown(body: bytes) -> str:
    text = " ".join(body[:2000].decode("utf-8", "replace").split())
    return f", it begins with {text[:120]!r}" if text else ", it is empty"


def retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None for anything else."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
