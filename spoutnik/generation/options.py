"""From what a caller asks to what a reply will be: every default is decided here, and `applied` says so.

No HTTP in here: the API, the page and the terminal ask the same way.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from spoutnik.engine.input_processor import check
from spoutnik.engine.llm import LLM
from spoutnik.engine.logits_processors import LogitsProcessor
from spoutnik.engine.sampling_params import LARGEST_SEED, SamplingParams
from spoutnik.errors import UserError
from spoutnik.generation.generation import GenerationPlan
from spoutnik.text.chat_template import Message, Tool
from spoutnik.text.thought import opens_thought

# Of max_tokens, the share that is the thought's. "none" switches thinking off; without an effort it is "high".
EFFORTS = {"none": 0.0, "minimal": 1 / 32, "low": 1 / 8, "medium": 1 / 2, "high": 3 / 4, "xhigh": 7 / 8, "max": 15 / 16}
ANSWER = 1024  # tokens kept for the answer are never more than these, unless an effort says so
CLOSING = "I have thought long enough; here is my answer."


class ContextOverflow(UserError):
    """Prompt and reply do not fit the model's positions."""


@dataclass(frozen=True)
class GenerationOptions:
    """What a caller may say about a reply besides the messages; None leaves it to the defaults.

    params: sampling; its max_tokens is not read. max_tokens: generated tokens, thought and answer.
    max_thinking_tokens, reasoning_effort, enable_thinking: how long the thought may be: in tokens, by a name of EFFORTS,
        or not at all.
    tools, documents, variables: for the template. closing: the sentence that ends a thought which is cut.
    constrain: makes what limits an answer's tokens.
    """

    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    max_thinking_tokens: int | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | None = None
    tools: Sequence[Tool] | None = None
    documents: Sequence[dict] | None = None
    variables: Mapping[str, object] = field(default_factory=dict)
    closing: str = CLOSING
    detect_loops: bool = True
    constrain: Callable[[], LogitsProcessor] | None = None

    @property
    def thinks(self) -> bool:
        return self.enable_thinking is not False and self.reasoning_effort != "none" and self.max_thinking_tokens != 0

    @property
    def told(self) -> dict[str, object]:
        """What the template reads besides messages and tools."""
        switch = self.enable_thinking is not None or not self.thinks
        return {**self.variables, **({"enable_thinking": self.thinks} if switch else {})}


def plan_chat(llm: LLM, messages: Sequence[Message], options: GenerationOptions) -> GenerationPlan:
    """The plan of the assistant's next message.

    Raises:
        UserError: the messages or an option are wrong. ContextOverflow: too long.
    """
    if llm.tokenizer is None:
        raise UserError("this model came without a tokenizer: it cannot chat.")
    if options.reasoning_effort is not None and options.reasoning_effort not in EFFORTS:
        raise UserError(f"reasoning_effort = {options.reasoning_effort!r}: unknown. Choose {', '.join(EFFORTS)}.")
    if options.enable_thinking and (options.reasoning_effort == "none" or options.max_thinking_tokens == 0):
        raise UserError("enable_thinking = true: contradicts a thought of no tokens. Leave one of them out.")
    prompt = llm.tokenizer.chat_ids(messages, options.tools, options.documents, options.told)
    return plan_prompt(llm, prompt, options)


def plan_prompt(llm: LLM, prompt: list[int], options: GenerationOptions) -> GenerationPlan:
    """The same for a prompt that is rendered already."""
    tokenizer, thinking = llm.tokenizer, opens_thought(prompt, llm.tokenizer)
    closing: list[int] = []
    if tokenizer.end_think_id is not None:
        closing = tokenizer.end_thought_ids
        if options.thinks:
            closing = tokenizer.encode(f"\n\n{options.closing}") + closing
    kept = len(closing)
    room = places(llm) - len(prompt) - kept
    if room < 1:
        raise ContextOverflow(f"messages: have {len(prompt)} tokens, which leaves no room for a reply: {longest(llm)}. Shorten "
                              f"them by {1 - room} tokens or more.")
    if options.max_tokens is not None and options.max_tokens > room:
        raise ContextOverflow(f"max_tokens = {options.max_tokens}: with {len(prompt)} tokens of messages at most {room} fit, "
                              f"since {longest(llm)}. Lower it, or leave it out to take all there are.")
    max_tokens = room if options.max_tokens is None else options.max_tokens
    params = replace(options.params, max_tokens=max_tokens)
    check(prompt, params, llm.config, tokenizer)
    seed = params.seed if params.seed is not None else secrets.randbelow(LARGEST_SEED)
    return GenerationPlan(prompt, thinking, params, _thought(max_tokens, options), closing, seed, options.thinks,
                          options.detect_loops,
                          options.constrain)


def places(llm: LLM) -> int:
    """Of the model and of its cache, for one prompt and its reply."""
    return llm.max_model_len


def longest(llm: LLM) -> str:
    """In OpenAI's words, by which clients know that they must shorten the conversation."""
    less = " (its cache holds no more: give the server more memory)" if places(llm) < llm.config.max_position_embeddings else ""
    return f"this model's maximum context length is {places(llm)} tokens{less}"


def _thought(max_tokens: int, options: GenerationOptions) -> int:
    """How many of max_tokens may be thought."""
    if not options.thinks:
        return 0
    if options.reasoning_effort is None:
        most = max_tokens - min(max(max_tokens // 4, 1), ANSWER)
    else:
        most = int(max_tokens * EFFORTS[options.reasoning_effort])
    return most if options.max_thinking_tokens is None else min(options.max_thinking_tokens, max_tokens - 1)


def applied(plan: GenerationPlan) -> dict:
    """Every parameter in force, under its name in the API."""
    params = plan.params
    return {"max_tokens": params.max_tokens, "max_thinking_tokens": plan.max_thinking_tokens,
            "enable_thinking": plan.may_think, "detect_loops": plan.detect_loops, "seed": plan.seed,
            "temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_tokens, "min_p": params.min_p,
            "presence_penalty": params.presence_penalty, "frequency_penalty": params.frequency_penalty,
            "repetition_penalty": params.repetition_penalty, "n": params.n, "stop": list(params.stop),
            "stop_token_ids": list(params.stop_token_ids), "logit_bias": {str(k): v for k, v in params.logit_bias.items()},
            "min_tokens": params.min_tokens, "logprobs": params.logprobs, "prompt_tokens": len(plan.prompt),
            "structured_output": plan.constrain is not None}
