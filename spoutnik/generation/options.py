"""From what a caller asks for to a plan of the generation: every default is decided here, and `applied` lists them."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from spoutnik.engine.input_processor import check
from spoutnik.engine.llm import LLM
from spoutnik.engine.logits_processors import LogitsProcessor
from spoutnik.engine.sampling_params import LARGEST_SEED, SamplingParams
from spoutnik.errors import UserError
from spoutnik.generation.tools.tool_set import NO_TOOLS, ToolSet
from spoutnik.text.chat_template import Message
from spoutnik.text.thought import opens_thought
from spoutnik.text.tokenizer import TextTooLong

# Of max_tokens, the share that is the thought's. "none" switches thinking off; without an effort it is "high".
EFFORTS = {"none": 0.0, "minimal": 1 / 32, "low": 1 / 8, "medium": 1 / 2, "high": 3 / 4, "xhigh": 7 / 8, "max": 15 / 16}
MAX_ANSWER_TOKENS = 1024  # the most that are kept for the answer where no effort is given
CLOSING = "I have thought long enough; here is my answer."


class ContextOverflow(UserError):
    """Prompt and reply do not fit the model's positions."""


@dataclass(frozen=True)
class GenerationOptions:
    """What a caller may ask for besides the messages; None leaves it to the defaults.

    params: sampling; its max_tokens is not read. max_tokens: generated tokens, thought and answer.
    max_thinking_tokens, reasoning_effort, enable_thinking: how long the thought may be: in tokens, by a name of EFFORTS,
        or not at all. closing: the sentence that ends one that is cut.
    documents, variables: for the template. make_logits_processor: makes what holds the answer to a form (grammar.py).
    """

    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    max_thinking_tokens: int | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | None = None
    tools: ToolSet = NO_TOOLS
    documents: Sequence[dict] | None = None
    variables: Mapping[str, object] = field(default_factory=dict)
    closing: str = CLOSING
    detect_loops: bool = True
    make_logits_processor: Callable[[], LogitsProcessor] | None = None

    @property
    def may_think(self) -> bool:
        return self.enable_thinking is not False and self.reasoning_effort != "none" and self.max_thinking_tokens != 0

    @property
    def template_variables(self) -> dict[str, object]:
        """What the template reads besides messages and tools."""
        switch = self.enable_thinking is not None or not self.may_think
        return {**self.variables, **({"enable_thinking": self.may_think} if switch else {})}


@dataclass(frozen=True)
class GenerationPlan:
    """What will be generated, all of it decided.

    prompt: token ids, as the template rendered them. thinking: they end inside a thought.
    params: its max_tokens counts thought and answer; its stop texts end the answer alone.
    max_thinking_tokens: the rest of max_tokens is the answer's. may_think: the model may open a thought itself.
    closing: the ids that close a thought which does not end by itself, `</think>` among them.
    """

    prompt: list[int]
    thinking: bool
    params: SamplingParams
    max_thinking_tokens: int
    closing: list[int]
    seed: int
    may_think: bool = True
    detect_loops: bool = True
    make_logits_processor: Callable[[], LogitsProcessor] | None = None

    def with_n(self, n: int) -> "GenerationPlan":
        return replace(self, params=replace(self.params, n=n))


def plan_chat(llm: LLM, messages: Sequence[Message], options: GenerationOptions) -> GenerationPlan:
    """The plan of the assistant's next message.

    Raises:
        UserError: the messages or an option are wrong. ContextOverflow: too long.
    """
    tokenizer = llm.tokenizer
    if tokenizer is None:
        raise UserError("this model came without a tokenizer: it cannot chat.")
    if options.reasoning_effort is not None and options.reasoning_effort not in EFFORTS:
        raise UserError(f"reasoning_effort = {options.reasoning_effort!r}: unknown. Choose {', '.join(EFFORTS)}.")
    if options.enable_thinking and (options.reasoning_effort == "none" or options.max_thinking_tokens == 0):
        raise UserError("enable_thinking = true: contradicts a thought of no tokens. Leave one of them out.")
    messages, tools = options.tools.conversation(tokenizer, messages)
    try:
        prompt = tokenizer.chat_ids(messages, tools, options.documents, options.template_variables,
                                    max_tokens=llm.max_model_len)
    except TextTooLong as error:
        raise ContextOverflow(f"messages: {error}, and {describe_context_length(llm)}. Shorten them.") from error
    closing: list[int] = []
    if tokenizer.end_think_id is not None:
        closing = tokenizer.end_thought_ids
        if options.may_think:
            closing = tokenizer.encode(f"\n\n{options.closing}") + closing
    max_tokens = _max_tokens(llm, len(prompt), len(closing), options)
    params = replace(options.params, max_tokens=max_tokens)
    check(prompt, params, llm.config, tokenizer)
    seed = params.seed if params.seed is not None else secrets.randbelow(LARGEST_SEED)
    return GenerationPlan(prompt, opens_thought(prompt, tokenizer), params, _max_thinking_tokens(max_tokens, options), closing,
                          seed, options.may_think, options.detect_loops, options.make_logits_processor)


def _max_tokens(llm: LLM, prompt: int, closing: int, options: GenerationOptions) -> int:
    """Generated tokens of the reply, given the lengths of the prompt and of what closes a thought."""
    left = llm.max_model_len - prompt - closing
    if left < 1:
        raise ContextOverflow(f"messages: have {prompt} tokens, which leaves no room for a reply: "
                              f"{describe_context_length(llm)}. Shorten them by {1 - left} tokens or more.")
    if options.max_tokens is not None and options.max_tokens > left:
        raise ContextOverflow(f"max_tokens = {options.max_tokens}: with {prompt} tokens of messages at most {left} fit, "
                              f"since {describe_context_length(llm)}. Lower it, or leave it out to take all there are.")
    return left if options.max_tokens is None else options.max_tokens


def _max_thinking_tokens(max_tokens: int, options: GenerationOptions) -> int:
    """How many of max_tokens may be thought."""
    if not options.may_think:
        return 0
    if options.max_thinking_tokens is not None:
        return min(options.max_thinking_tokens, max_tokens - 1)
    if options.reasoning_effort is not None:
        return int(max_tokens * EFFORTS[options.reasoning_effort])
    return max_tokens - min(max(max_tokens // 4, 1), MAX_ANSWER_TOKENS)


def describe_context_length(llm: LLM) -> str:
    """The limit in OpenAI's words, by which clients know that they must shorten the conversation."""
    limit = llm.max_model_len
    less = " (its cache holds no more: give the server more memory)" if limit < llm.config.max_position_embeddings else ""
    return f"this model's maximum context length is {limit} tokens{less}"


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
            "structured_output": plan.make_logits_processor is not None}
