"""SamplingParams: how a request's tokens are chosen, in vLLM's names."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spoutnik.errors import UserError
from spoutnik.text.chat_template import refuse_half_characters

LARGEST_SEED = 2 ** 63 - 1
RAW_LOGPROBS, PROCESSED_LOGPROBS = LOGPROBS_MODES = ("raw_logprobs", "processed_logprobs")


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Checked when they are created (UserError). The defaults of temperature and top_p are R1's.

    n: samples of the prompt. temperature: 0 is greedy. top_p: share of the probability to sample from. top_k: only the k
        likeliest tokens; 0 or -1 for all. min_p: only tokens at least this fraction as likely as the likeliest.
    repetition_penalty: divides positive and multiplies negative logits of tokens seen in prompt or completion.
        presence_penalty, frequency_penalty: subtracted from the logits of the completion's tokens, once and per occurrence.
        logit_bias: token id -> added to its logit. allowed_token_ids: no others may come, the end of sentence neither.
        bad_words: texts that must not come, with or without a space before them.
    seed: of the request's random numbers; None lets the LLM number its requests.
    stop: texts that end a completion (left out of it unless include_stop_str_in_output). stop_token_ids: tokens that do.
        ignore_eos: the end of sentence does not. min_tokens: nothing does before so many tokens.
    max_tokens: counts every generated token, the end of sentence included.
    logprobs, prompt_logprobs: how many of the likeliest tokens to report besides the chosen one; None for none at all.
        logprobs_mode: of `logprobs`; "raw_logprobs" are the model's own, "processed_logprobs" those of the distribution that
        is sampled from before truncation: with penalties, biases and temperature. None takes the LLM's.
    skip_special_tokens: leaves special tokens out of the text.
    """

    n: int = 1
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    max_tokens: int = 256
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logprobs_mode: str | None = None
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True

    def __post_init__(self):
        values = self.__dict__
        for key, (kind, low, high, allowed) in _RANGES.items():
            value = values[key]
            if not (type(value) is kind and low <= value <= high):  # the common case first
                _check_number(key, value, kind, low, high, allowed)
        if self.top_p == 0:
            raise UserError("top_p = 0: must lie in (0, 1]. Give 1 to sample from all tokens, or temperature 0 for greedy.")
        if self.repetition_penalty == 0:
            raise UserError("repetition_penalty = 0: must lie in (0, 10]. Give 1 for none.")
        for key in ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens"):
            if not isinstance(getattr(self, key), bool):
                raise UserError(f"{key} = {getattr(self, key)!r}: must be True or False.")
        if self.logprobs_mode is not None:
            check_logprobs_mode(self.logprobs_mode)
        for key in ("stop", "bad_words"):
            object.__setattr__(self, key, _texts(key, getattr(self, key)))
        if self.allowed_token_ids == []:
            raise UserError("allowed_token_ids: is empty, so that no token could come. Name some, or leave it out.")
        for key in ("stop_token_ids", "allowed_token_ids"):
            object.__setattr__(self, key, _ids(key, getattr(self, key)))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        if self.min_tokens > self.max_tokens:
            raise UserError(f"min_tokens = {self.min_tokens}: more than max_tokens = {self.max_tokens}. Lower it or raise "
                            "max_tokens.")
        if self.include_stop_str_in_output and not self.stop:
            raise UserError("include_stop_str_in_output = True: there is no stop text to include. Give stop, or leave it out.")

    def changed(self, **values) -> "SamplingParams":
        """A copy with other values, which must be valid and in the fields' own forms (tuples, not lists or None): unlike
        `dataclasses.replace`, it checks nothing again."""
        params = object.__new__(SamplingParams)
        params.__dict__.update(self.__dict__, **values)
        return params

    @property
    def top_tokens(self) -> int:
        """top_k with 0 for off."""
        return max(self.top_k, 0)

    @property
    def has_penalties(self) -> bool:
        """Whether the logits depend on earlier tokens."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def changes_logits(self) -> bool:
        """Whether a PenaltyProcessor is needed."""
        return self.has_penalties or bool(self.logit_bias) or self.min_tokens > 0


def check_logprobs_mode(mode: object) -> None:
    if mode not in LOGPROBS_MODES:
        raise UserError(f"logprobs_mode = {mode!r}: unknown. Choose {' or '.join(LOGPROBS_MODES)}.")


_RANGES = {
    "n": (int, 1, 16384, "at least 1"),
    "temperature": (float, 0, 10, "in 0..10; 0 is greedy"),
    "top_p": (float, 0, 1, "in (0, 1]"),
    "top_k": (int, -1, 2 ** 31, "a number of tokens; 0 or -1 for all"),
    "min_p": (float, 0, 1, "in 0..1; 0 for none"),
    "repetition_penalty": (float, 0, 10, "in (0, 10]; 1 for none"),
    "presence_penalty": (float, -2, 2, "in -2..2; 0 for none"),
    "frequency_penalty": (float, -2, 2, "in -2..2; 0 for none"),
    "seed": (int, 0, LARGEST_SEED, "a whole number from 0 to 2^63 - 1, or None"),
    "max_tokens": (int, 1, 2 ** 31, "at least 1"),
    "min_tokens": (int, 0, 2 ** 31, "at least 0"),
    "logprobs": (int, 0, 1000, "in 0..1000, or None"),
    "prompt_logprobs": (int, 0, 1000, "in 0..1000, or None"),
}


def _check_number(key: str, value: object, kind: type, low: float, high: float, allowed: str) -> None:
    if value is None and key in ("seed", "logprobs", "prompt_logprobs"):
        return
    kinds = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise UserError(f"{key} = {value!r}: must be {allowed}.")


def _texts(key: str, value: object) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value or ())
    for text in texts:
        if not isinstance(text, str) or not text:
            raise UserError(f"{key} = {value!r}: must be a text or several, none of them empty.")
        refuse_half_characters(text, key)
    return texts


def _ids(key: str, value: object) -> tuple[int, ...]:
    ids = tuple(value or ())
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise UserError(f"{key} = {list(ids)!r}: must be token ids, whole numbers from 0.")
    return ids


def _biases(logit_bias: object) -> dict[int, float]:
    if not isinstance(logit_bias, Mapping | None):
        raise UserError(f"logit_bias = {logit_bias!r}: must be a dictionary from token id to a number.")
    biases = dict(logit_bias or {})
    for token, bias in biases.items():
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise UserError(f"logit_bias: the key {token!r} is not a token id, a whole number from 0.")
        if isinstance(bias, bool) or not isinstance(bias, (int, float)) or not math.isfinite(bias) or abs(bias) > 100:
            raise UserError(f"logit_bias: {token}: {bias!r} must be a number in -100..100; -100 forbids the token.")
    return biases
