"""From what a caller asks for to a plan of the generation: every default is decided here, and `applied` lists them."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from spoutnik.engine.input_processor import check
from spoutnik.engine.llm import LLM
from spoutnik.engine.logits_processors import LogitsProcessor
from spoutnik.engine.sampling_params import LARGEST_SEED, SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.generation.closing import closing_sentence
from spoutnik.generation.conversation import ConversationRenderer, Prefill, RenderedConversation
from spoutnik.generation.tools.tool_set import NO_TOOLS, ToolSet
from spoutnik.text.chat_template import Message
from spoutnik.text.thought_format import has_plain_marks, opens_thought, thought_format
from spoutnik.text.tokenizer import TextTooLong, Tokenizer

# Of max_tokens, the share that is the thought's. "none" switches thinking off; without an effort it is "high".
EFFORTS = {"none": 0.0, "minimal": 1 / 32, "low": 1 / 8, "medium": 1 / 2, "high": 3 / 4, "xhigh": 7 / 8, "max": 15 / 16}
MAX_ANSWER_TOKENS = 1024  # the most that are kept for the answer where no effort is given


class ContextOverflow(UserError):
    """Prompt and reply do not fit the model's positions."""


@dataclass(frozen=True)
class GenerationOptions:
    """What a caller may ask for besides the messages; None leaves it to the defaults.

    params: sampling; its max_tokens is not read. max_tokens: generated tokens, thought and answer; more than there is room for
        are as many as there is room for.
    max_thinking_tokens, reasoning_effort, enable_thinking: how long the thought may be: in tokens, by a name of EFFORTS (the
        shorter of the two), or not at all. closing: the sentence that ends one that is cut; None for one in the language of the
        question.
    documents, variables: for the template. make_logits_processor: makes what holds the answer to a form (grammar.py).
    continue_final_message: the reply goes on with the last message, the assistant's; None: where it is the assistant's.
    add_generation_prompt: None is true. truncate_prompt_tokens: of a longer prompt the last so many; -1: as many as leave room.
    """

    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    max_thinking_tokens: int | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | None = None
    tools: ToolSet = NO_TOOLS
    documents: Sequence[dict] | None = None
    variables: Mapping[str, object] = field(default_factory=dict)
    closing: str | None = None
    detect_loops: bool = True
    make_logits_processor: Callable[[], LogitsProcessor] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    truncate_prompt_tokens: int | None = None

    @property
    def may_think(self) -> bool:
        return self.enable_thinking is not False and self.reasoning_effort != "none" and self.max_thinking_tokens != 0

    @property
    def template_variables(self) -> dict[str, object]:
        """What the template reads besides messages and tools."""
        switch = self.enable_thinking is not None or not self.may_think
        effort = {} if self.reasoning_effort in (None, "none") else {"reasoning_effort": self.reasoning_effort}
        names = ("enable_thinking", "thinking") if switch else ()  # Qwen's templates read the one, DeepSeek's the other
        return {**effort, **self.variables, **dict.fromkeys(names, self.may_think)}

    @property
    def continues(self) -> bool | None:
        """Whether the last message is continued; None: where it is the assistant's."""
        if self.continue_final_message is None and self.add_generation_prompt:
            return False
        return self.continue_final_message


@dataclass(frozen=True)
class GenerationPlan:
    """What will be generated, all of it decided.

    prompt: token ids, as the template rendered them. thinking: they end inside a thought.
    params: its max_tokens counts thought and answer; its stop texts end the answer alone.
    max_thinking_tokens: the rest of max_tokens is the answer's. may_think: the model may open a thought itself.
    closing: the ids that close a thought which does not end by itself, `</think>` among them. tools: those that the answer may
        call, in which no stop text is looked for.
    prefill: the beginning of the message that is continued, part of the prompt. notes: sentences on what was asked for and
        is otherwise.
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
    tools: ToolSet = NO_TOOLS
    prefill: Prefill | None = None
    notes: tuple[str, ...] = ()

    @property
    def continues_answer(self) -> bool:
        """Some of the answer is in the prompt: the reply may add nothing to it."""
        return self.prefill is not None and bool(self.prefill.answer)

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
    try:
        conversation = render_chat(tokenizer, messages, options, None if options.truncate_prompt_tokens else llm.max_model_len)
    except TextTooLong as error:
        raise ContextOverflow(f"messages: {error}, and {describe_context_length(llm)}. Shorten them.") from error
    if conversation.prefill is not None and conversation.prefill.in_answer:
        make = _begun(options.make_logits_processor, conversation.prefill, tokenizer)
        options = replace(options, enable_thinking=False, make_logits_processor=make)
    closing = _closing_ids(tokenizer, messages, options)
    # A model whose marks are plain text may never think: it keeps its positions for the answer.
    reserved = len(closing) if opens_thought(conversation.ids, tokenizer) or not has_plain_marks(tokenizer) else 0
    prompt, notes = _truncated(llm, conversation.ids, reserved, options)
    max_tokens, more = _max_tokens(llm, len(prompt), reserved, options)
    params = replace(options.params, max_tokens=max_tokens, stop_token_ids=_stop_token_ids(options.params, tokenizer))
    check(prompt, params, llm.config, tokenizer)
    seed = params.seed if params.seed is not None else secrets.randbelow(LARGEST_SEED)
    return GenerationPlan(prompt, opens_thought(prompt, tokenizer), params, _max_thinking_tokens(max_tokens, options), closing,
                          seed, options.may_think, options.detect_loops, options.make_logits_processor, options.tools,
                          conversation.prefill, (*conversation.notes, *notes, *more))


def _stop_token_ids(params: SamplingParams, tokenizer: Tokenizer) -> tuple[int, ...]:
    """With the template's end of a turn, where no file of the model names it among the ends of sentence."""
    unnamed = set() if params.ignore_eos else set(thought_format(tokenizer).end_ids) - set(tokenizer.eos_ids)
    return (*params.stop_token_ids, *sorted(unnamed - set(params.stop_token_ids)))


def _closing_ids(tokenizer: Tokenizer, messages: Sequence[Message], options: GenerationOptions) -> list[int]:
    sentence = closing_sentence(messages) if options.closing is None else options.closing
    said = tokenizer.encode(f"\n\n{sentence}", continues=True) if sentence and options.may_think else []
    return said + thought_format(tokenizer).closing_ids(tokenizer)


def render_chat(tokenizer: Tokenizer, messages: Sequence[Message], options: GenerationOptions,
                max_tokens: int | None = None) -> RenderedConversation:
    """The conversation's ids, as far as they do not depend on lengths. Raises UserError; TextTooLong where there are certainly
    more than max_tokens."""
    if options.continue_final_message and options.add_generation_prompt:
        raise UserError("continue_final_message = true: contradicts add_generation_prompt = true. Leave one of them out.")
    renderer = ConversationRenderer(tokenizer, options.tools, options.documents, options.template_variables,
                                    options.add_generation_prompt is not False, max_tokens)
    return renderer.render(messages, options.continues)


def _begun(make: Callable[[], LogitsProcessor] | None, prefill: Prefill,
           tokenizer: Tokenizer) -> Callable[[], LogitsProcessor] | None:
    """What holds an answer to its form that has begun with these words."""
    if make is None:
        return None
    ids = tokenizer.encode(prefill.answer, continues=True)

    def make_begun() -> LogitsProcessor:
        processor = make()
        for token in ids:
            processor.feed(token)
        return processor

    try:
        make_begun()
    except RunError as error:
        raise UserError("messages: the assistant's last one does not begin what is asked for as the answer's form. Change one "
                        "of them.") from error
    make_begun.loosened = getattr(make, "loosened", ())
    return make_begun


def _truncated(llm: LLM, prompt: list[int], closing: int, options: GenerationOptions) -> tuple[list[int], tuple[str, ...]]:
    """The prompt, and a note where it was cut."""
    most = options.truncate_prompt_tokens
    if most == -1:
        most = max(llm.max_model_len - closing - max(options.max_tokens or 1, 1), 1)
    if most is None or len(prompt) <= most:
        return prompt, ()
    return prompt[-most:], (f"truncate_prompt_tokens: the first {len(prompt) - most} of the prompt's {len(prompt)} tokens were "
                            "left out.",)


def _max_tokens(llm: LLM, prompt: int, closing: int, options: GenerationOptions) -> tuple[int, tuple[str, ...]]:
    """Generated tokens of the reply, given the lengths of the prompt and of what closes a thought; and a note where it is not
    what was asked for."""
    left = llm.max_model_len - prompt - closing
    if left < 1:
        raise ContextOverflow(f"messages: have {prompt} tokens, which leaves no room for a reply: "
                              f"{describe_context_length(llm)}. Shorten them by {1 - left} tokens or more.")
    return clamp_max_tokens(llm, options.max_tokens, left, prompt)


def clamp_max_tokens(llm: LLM, asked: int | None, left: int, prompt: int) -> tuple[int, tuple[str, ...]]:
    """asked: None takes all that are left."""
    if asked is not None and asked > left:
        return left, (f"max_tokens = {asked}: with a prompt of {prompt} tokens at most {left} fit, since "
                      f"{describe_context_length(llm)}; so many were taken.",)
    return left if asked is None else asked, ()


def _max_thinking_tokens(max_tokens: int, options: GenerationOptions) -> int:
    """How many of max_tokens may be thought."""
    if not options.may_think:
        return 0
    limits = [] if options.max_thinking_tokens is None else [min(options.max_thinking_tokens, max_tokens - 1)]
    if options.reasoning_effort is not None:
        limits.append(int(max_tokens * EFFORTS[options.reasoning_effort]))
    return min(limits, default=max_tokens - min(max(max_tokens // 4, 1), MAX_ANSWER_TOKENS))


def describe_context_length(llm: LLM) -> str:
    """The limit in OpenAI's words, by which clients know that they must shorten the conversation."""
    limit, cache = llm.max_model_len, llm.core.scheduler.pool.num_slots
    short = limit == cache < llm.config.max_position_embeddings
    less = " (its cache holds no more: give the server more memory)" if short else ""
    return f"this model's maximum context length is {limit} tokens{less}"


def applied(plan: GenerationPlan) -> dict:
    """Every parameter in force, under its name in the API."""
    return applied_sampling(plan.params) | {
        "max_thinking_tokens": plan.max_thinking_tokens, "enable_thinking": plan.may_think, "detect_loops": plan.detect_loops,
        "seed": plan.seed, "prompt_tokens": len(plan.prompt), "structured_output": plan.make_logits_processor is not None,
        "loosened_tools": list(loosened(plan)), "notes": list(plan.notes)}


def loosened(plan: GenerationPlan) -> tuple[str, ...]:
    """What of its tools' schemas the answer is not held to (grammar.Form)."""
    return getattr(plan.make_logits_processor, "loosened", ())


def applied_sampling(params: SamplingParams) -> dict:
    return {"max_tokens": params.max_tokens, "temperature": params.temperature, "top_p": params.top_p,
            "top_k": params.top_tokens, "min_p": params.min_p, "presence_penalty": params.presence_penalty,
            "frequency_penalty": params.frequency_penalty, "repetition_penalty": params.repetition_penalty, "n": params.n,
            "stop": list(params.stop), "stop_token_ids": list(params.stop_token_ids), "min_tokens": params.min_tokens,
            "logit_bias": {str(token): bias for token, bias in params.logit_bias.items()}, "logprobs": params.logprobs,
            "ignore_eos": params.ignore_eos, "bad_words": list(params.bad_words),
            "allowed_token_ids": list(params.allowed_token_ids)}
