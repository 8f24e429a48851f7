"""The input processor: prompts to token ids, and the checks of a request before any work begins."""

import sys
from collections.abc import Mapping, Sequence
from weakref import WeakSet

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.text.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Mapping[str, object]


def prompts_of(prompts: object) -> list[Prompt]:
    """One prompt or several, as a list."""
    if isinstance(prompts, (str, Mapping)) or _is_ids(prompts):
        return [prompts]
    if isinstance(prompts, Sequence):
        return list(prompts)
    raise UserError(f"prompts = {_short(prompts)}: must be a text, a list of token ids, {{\"prompt_token_ids\": [...]}}, or a "
                    "list of these.")


def conversations_of(messages: object) -> list[Sequence[Mapping]]:
    """One conversation or several, as a list."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise UserError(f"messages = {_short(messages)}: must be a list of messages such as {{\"role\": \"user\", \"content\": "
                        "\"...\"}, or a list of such lists.")
    conversations = [messages] if isinstance(messages[0], Mapping) else list(messages)
    for one in conversations:
        if not isinstance(one, Sequence) or not one or not all(isinstance(message, Mapping) for message in one):
            raise UserError(f"messages = {_short(one)}: must be a list of messages such as {{\"role\": \"user\", "
                            "\"content\": \"...\"}.")
    return conversations


def params_of(params: object, count: int, default: SamplingParams) -> list[SamplingParams]:
    """One for all `count` prompts, or one for each, as a list. default: in place of None."""
    if params is None:
        params = default
    if isinstance(params, SamplingParams):
        return [params] * count
    if not isinstance(params, Sequence) or not all(isinstance(p, SamplingParams) for p in params):
        raise UserError(f"sampling_params = {_short(params)}: must be a SamplingParams, or a list of them.")
    if len(params) != count:
        raise UserError(f"sampling_params: {len(params)} of them for {count} prompts. Give one for all, or one for each.")
    return list(params)


def tokens_of(prompt: Prompt, tokenizer: Tokenizer | None, parse_special: bool = False) -> tuple[str | None, list[int]]:
    """(text, token ids); the text is None where ids were given. parse_special: see `LLM.generate`."""
    if isinstance(prompt, Mapping):
        keys = [key for key in ("prompt_token_ids", "prompt") if key in prompt]
        if len(keys) != 1 or len(prompt) != 1:
            raise UserError(f"a prompt = {_short(prompt)}: must have the one key prompt_token_ids, or prompt.")
        prompt = prompt[keys[0]]
    if not isinstance(prompt, str):
        if not isinstance(prompt, Sequence):
            raise UserError(f"a prompt = {_short(prompt)}: must be a text, a list of token ids, or {{\"prompt_token_ids\": "
                            "[...]}.")
        return None, list(prompt)
    if tokenizer is None:
        raise UserError("a prompt is text, and this model came without a tokenizer. Give token ids, or LLM(..., "
                        "tokenizer=...).")
    if not prompt:
        raise UserError("a prompt is empty: give it at least one token.")
    if not parse_special:
        _tell_of_special_token(prompt, tokenizer)
    return prompt, tokenizer.prompt_ids(prompt, parse_special)[0]


def _tell_of_special_token(prompt: str, tokenizer: Tokenizer) -> None:
    """On stderr, once for a tokenizer: a rendered conversation that is read as plain text gives replies that make no sense."""
    if tokenizer not in _told and (token := tokenizer.spelled_special(prompt)) is not None:
        _told.add(tokenizer)
        print(f"a prompt spells {token!r}, a special token of this model, which is read as plain text. Give parse_special=True "
              "where it is meant, and conversations to LLM.chat.", file=sys.stderr)


_told: WeakSet[Tokenizer] = WeakSet()


def check(ids: list[int], params: SamplingParams, config: ModelConfig, tokenizer: Tokenizer | None,
          max_model_len: int | None = None) -> None:
    """Raises UserError where a request cannot be served by this model. max_model_len: None takes the model's positions."""
    vocab_size, limit = config.vocab_size, max_model_len or config.max_position_embeddings
    if not ids:
        raise UserError("a prompt is empty: give it at least one token.")
    for token in ids:
        if type(token) is not int or not 0 <= token < vocab_size:
            raise UserError(f"a prompt has the token id {token!r}: the model's are 0 to {vocab_size - 1}. Encode the text with "
                            "the model's own tokenizer.")
    if len(ids) >= limit:
        raise UserError(f"a prompt has {len(ids)} tokens: the model's {limit} positions leave no room for a reply. Shorten it "
                        f"to {limit - 1} or fewer.")
    if len(ids) + params.max_tokens > limit:
        raise UserError(f"max_tokens = {params.max_tokens}: with a prompt of {len(ids)} tokens it passes the model's {limit} "
                        f"positions. Lower max_tokens to {limit - len(ids)} or shorten the prompt.")
    for key in ("stop_token_ids", "allowed_token_ids", "logit_bias"):
        for token in getattr(params, key):
            if token >= vocab_size:
                raise UserError(f"{key}: the token id {token} is not the model's, which are 0 to {vocab_size - 1}.")
    for key in ("stop", "bad_words"):
        if getattr(params, key) and tokenizer is None:
            raise UserError(f"{key} = {list(getattr(params, key))!r}: needs a tokenizer, and this model came without one. Give "
                            "token ids (stop_token_ids, logit_bias), or LLM(..., tokenizer=...).")


def _is_ids(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0 and all(type(i) is int for i in value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
