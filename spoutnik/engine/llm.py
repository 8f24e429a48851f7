"""`spoutnik.LLM`: a model ready to generate, in the shape that vLLM's users know."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from spoutnik.engine.core import EngineCore
from spoutnik.engine.input_processor import Prompt, check, conversations_of, params_of, prompts_of, tokens_of
from spoutnik.engine.outputs import CompletionOutput, RequestOutput
from spoutnik.engine.pooling import embed
from spoutnik.engine.request import Request
from spoutnik.engine.runners.base import Runner
from spoutnik.engine.runners.select import bytes_of, cache_blocks, make_runner
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.engine.scheduler import Scheduler
from spoutnik.engine.speculative import Drafter, MTPDrafts, PromptLookup
from spoutnik.errors import RunError, UserError
from spoutnik.hardware import compute_dtype
from spoutnik.loading import find_tokenizer
from spoutnik.locate import locate
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer
from spoutnik.text.tokenizer import Message, Tokenizer

SPECULATIONS = ("mtp", "prompt_lookup")
NO_DRAFTS = "Nothing is drafted: the model lies in the processor's caches, where a draft costs more than it saves."
_DRAFTED_UP_TO = 8


class LLM:
    """A model, its cache and the requests under way.

    Args:
        model: a folder in Hugging Face layout, a run's folder, "org/model" on the hub, or a Transformer in memory (what it
            becomes later does not matter here).
        tokenizer: None takes the folder's, if it has one; token ids need none.
        dtype, device: of weights and cache; "auto" is bfloat16 where the processor multiplies it, else float32; None is the
            CPU. A Transformer has its own.
        quantize: "int8" or "int4" weights, None for none.
        memory: what weights and cache may take together, as "16GB" or bytes; None takes a part of what is free.
        max_num_seqs: sequences decoded at the same time. max_num_batched_tokens: tokens computed in one step.
        speculate: "mtp" drafts by the model's own module, "prompt_lookup" by what was said before: the same tokens in fewer
            steps. num_speculative_tokens: drafts in a step. speculate_up_to: sequences at a time; beyond, none. By default 8
            where weights come from memory, 0 where the model lies in the processor's caches: there a token more in a step is
            not free, and a step is short (docs/results.md).
        enable_prefix_caching: prompts that begin alike are computed once.
        eos_token_ids: tokens that end a completion; None takes the tokenizer's, or the configuration's.
        seed: of the random numbers of requests that bring none (see `row_seed`).
        progress: hears, while weights are quantised for the first time, how many bytes of how many are done.
    Raises:
        UserError, RunError: a sentence with the key, the value and the remedy.
    """

    def __init__(self, model: str | Path | Transformer | Runner, tokenizer: Tokenizer | None = None, *,
                 dtype: str | torch.dtype = "auto", device: str | None = None, quantize: str | None = None,
                 memory: str | int | None = None, max_num_seqs: int = 256, max_num_batched_tokens: int = 2048,
                 speculate: str | None = None, num_speculative_tokens: int = 1, speculate_up_to: int | None = None,
                 enable_prefix_caching: bool = True, eos_token_ids: Sequence[int] | None = None, seed: int = 0,
                 progress: Callable[[int, int], None] | None = None):
        memory = bytes_of(memory)
        if isinstance(model, str | Path):
            folder, dtype = locate(model), _dtype_of(dtype)
            tokenizer = tokenizer or find_tokenizer(folder)
            _check_speculation(speculate, num_speculative_tokens, ModelConfig.load(folder))
            where = device or "cpu"
            runner = make_runner(folder, quantize, memory, dtype, where, progress)
        elif dtype != "auto" or device is not None:
            raise UserError("dtype and device are those of the model given: leave them out, or give a folder.")
        else:
            _check_speculation(speculate, num_speculative_tokens, model.config)
            given = isinstance(model, Transformer)
            where = model.embed_tokens.weight.device if given else model.device
            runner = make_runner(model, quantize, memory) if given else model
        self.config = runner.config
        self.tokenizer, self.seed = tokenizer, seed
        if speculate_up_to is None:
            speculate_up_to = _DRAFTED_UP_TO if runner.max_multi_steps == 1 else 0
        drafting = speculate is not None and speculate_up_to > 0
        mtp = drafting and speculate == "mtp"
        blocks = cache_blocks(runner, where, memory, max_num_seqs, mtp)
        scheduler = Scheduler(blocks, max_num_seqs, max_num_batched_tokens, enable_prefix_caching)
        runner.allocate(blocks, mtp)
        drafter: Drafter | None = None
        if drafting:
            drafter = (MTPDrafts(runner, num_speculative_tokens, speculate_up_to) if mtp else
                       PromptLookup(num_speculative_tokens, speculate_up_to))
        if eos_token_ids is None:
            eos_token_ids = self.config.eos_token_ids if tokenizer is None else tokenizer.eos_ids
        self.core = EngineCore(runner, scheduler, eos_token_ids, tokenizer, drafter)
        self._requests = 0

    def generate(self, prompts: Prompt | Sequence[Prompt],
                 sampling_params: SamplingParams | Sequence[SamplingParams] | None = None, *, seed: int | None = None,
                 on_progress: Callable[[int, int], None] | None = None) -> list[RequestOutput]:
        """Completions of one prompt or several, in their order.

        Args:
            prompts: texts, lists of token ids, or {"prompt_token_ids": [...]}.
            sampling_params: one for all prompts or one for each.
            seed: the random numbers are those of (seed, prompt's number in this call, sample's number), whatever else runs;
                None takes the LLM's seed and goes on numbering from call to call. A request's own seed goes before both.
            on_progress: hears, after each step, how many tokens were made and how many samples ended.
        Raises:
            UserError: a prompt or its parameters cannot be served; said before any work begins.
            RunError: the model gives no numbers.
        """
        return self._run(self._requests_of(prompts_of(prompts), sampling_params, seed), on_progress)

    def chat(self, messages: Sequence[Message] | Sequence[Sequence[Message]],
             sampling_params: SamplingParams | Sequence[SamplingParams] | None = None, *, tools: Sequence | None = None,
             variables: Mapping[str, object] | None = None, seed: int | None = None,
             on_progress: Callable[[int, int], None] | None = None) -> list[RequestOutput]:
        """The assistant's next message in one conversation or several (otherwise as `generate`). tools, variables: what the
        chat template reads (see `Tokenizer.render`)."""
        prompts = [self._chat_prompt(m, tools, variables) for m in conversations_of(messages)]
        return self._run(self._requests_of(prompts, sampling_params, seed), on_progress)

    def stream(self, prompt: Prompt | Sequence[Message], sampling_params: SamplingParams | None = None, *,
               tools: Sequence | None = None, variables: Mapping[str, object] | None = None,
               seed: int | None = None) -> Iterator[RequestOutput]:
        """One request as it comes: each RequestOutput holds what was added since the last (text, token ids, log-probabilities
        of the samples that have something new); the last one is `finished`. Leaving the loop ends the request."""
        if isinstance(prompt, Sequence) and not isinstance(prompt, str) and prompt and isinstance(prompt[0], Mapping):
            prompt = self._chat_prompt(prompt, tools, variables)
        request, = self._requests_of([prompt], sampling_params, seed)
        request.stream = True
        return self._stream(request)

    @torch.no_grad()
    def embed(self, prompts: Prompt | Sequence[Prompt]) -> torch.Tensor:
        """(n, hidden_size) float32: each prompt's mean hidden state, of length 1."""
        ids = [tokens_of(prompt, self.tokenizer)[1] for prompt in prompts_of(prompts)]
        for prompt in ids:
            check(prompt, SamplingParams(max_tokens=1), self.config, self.tokenizer)
        return torch.stack([embed(self.core.runner, self.core.scheduler, prompt) for prompt in ids])

    def abort(self, request_id: str) -> None:
        """Ends a request where it is; what it has generated is given back with finish_reason "abort"."""
        self.core.abort(request_id)

    def _chat_prompt(self, messages: Sequence[Message], tools: Sequence | None, variables: Mapping[str, object] | None) -> dict:
        if self.tokenizer is None:
            raise UserError("a conversation needs a tokenizer, and this model came without one. Give LLM(..., tokenizer=...).")
        return {"prompt_token_ids": self.tokenizer.chat_ids(messages, tools, variables=variables)}

    def _requests_of(self, prompts: list[Prompt], sampling_params: object, seed: int | None) -> list[Request]:
        """Checked, all of them, before the first is begun."""
        made = []
        for number, (prompt, params) in enumerate(zip(prompts, params_of(sampling_params, len(prompts)))):
            text, ids = tokens_of(prompt, self.tokenizer)
            check(ids, params, self.config, self.tokenizer)
            self.core.scheduler.refuse_unfitting(len(ids), params.max_tokens)
            if params.seed is not None:
                numbers = params.seed, 0
            elif seed is not None:
                numbers = seed, number
            else:
                numbers = self.seed, self._requests + number
            made.append(Request(str(self._requests + number), text, ids, params, *numbers))
        self._requests += len(made)
        return made

    def _run(self, requests: list[Request], on_progress: Callable[[int, int], None] | None) -> list[RequestOutput]:
        for request in requests:
            self.core.add(request)
        try:
            for request in requests:
                while request.unfinished:
                    made = self.core.step()
                    if on_progress is not None:
                        on_progress(made.tokens, len(made.ended))
        except BaseException:
            for request in requests:
                self.core.abort(request.request_id)
            raise
        outputs = [request.output([made.output(self.tokenizer) for made in request.samples]) for request in requests]
        _refuse_all_broken(outputs)
        return outputs

    def _stream(self, request: Request) -> Iterator[RequestOutput]:
        self.core.add(request)
        try:
            over = False
            while not over:
                if request.unfinished:  # others' steps may have ended it
                    self.core.step()
                over = not request.unfinished
                added = [self._added(request, index) for index in range(len(request.samples))]
                output = request.output([output for output in added if output is not None])
                _refuse_all_broken([output])
                if output.outputs or over:
                    yield output
        finally:
            self.core.abort(request.request_id)

    def _added(self, request: Request, index: int) -> CompletionOutput | None:
        made = request.samples[index]
        first = made.sent
        tokens, logprobs = self.core.new_tokens(made)
        if made.text is not None and made.finish_reason is not None:
            made.text.close()
        text = "" if made.text is None else made.text.take()
        if not tokens and not text and (made.finish_reason is None or made.closed):
            return None
        made.closed = made.finish_reason is not None
        top = None if made.top_logprobs is None else made.top_logprobs[first:made.sent]
        return CompletionOutput(index, text, tokens, logprobs, top, made.finish_reason, made.stop_reason)


def _dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    found = dtype if isinstance(dtype, torch.dtype) else None
    if dtype in ("auto", "float32", "bfloat16", "float16"):
        found = compute_dtype(dtype)
    if found is None or not found.is_floating_point:
        raise UserError(f"dtype = {dtype!r}: unknown. Choose auto, float32, bfloat16 or float16.")
    return found


def _check_speculation(speculate: str | None, drafts: int, config: ModelConfig) -> None:
    if speculate is None:
        return
    if speculate not in SPECULATIONS:
        raise UserError(f"speculate = {speculate!r}: unknown. Choose mtp or prompt_lookup, or leave it out.")
    if not isinstance(drafts, int) or drafts < 1:
        raise UserError(f"num_speculative_tokens = {drafts!r}: must be at least 1.")
    if speculate == "mtp" and not config.num_nextn_predict_layers:
        raise UserError("speculate = 'mtp': needs a model with an MTP module (num_nextn_predict_layers 1): this one has none. "
                        "Choose prompt_lookup, or leave it out.")


def _refuse_all_broken(outputs: list[RequestOutput]) -> None:
    """Where nothing came of any request, its reason is the answer."""
    reasons = [made.stop_reason for output in outputs for made in output.outputs if made.finish_reason == "error"]
    if reasons and len(reasons) == sum(len(output.outputs) for output in outputs):
        raise RunError(str(reasons[0]))
