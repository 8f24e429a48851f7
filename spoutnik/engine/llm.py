"""`spoutnik.LLM`: a model, its cache and its requests, with vLLM's interface."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path

import torch

from spoutnik.engine.adapters import LoadedAdapter, check_adapter, read_for
from spoutnik.engine.core import EngineCore
from spoutnik.engine.generation_config import generation_defaults
from spoutnik.engine.input_processor import Prompt, check, conversations_of, params_of, prompts_of, tokens_of
from spoutnik.engine.llm_checks import check_max_model_len, check_speculation, device_of, dtype_of, raise_if_all_failed
from spoutnik.engine.outputs import CompletionOutput, RequestOutput
from spoutnik.engine.pooling import embed_in_pieces
from spoutnik.engine.request import Request
from spoutnik.engine.runners.base import Runner
from spoutnik.engine.runners.select import bytes_of, make_runner, num_cache_blocks
from spoutnik.engine.sampling_params import RAW_LOGPROBS, SamplingParams, check_logprobs_mode
from spoutnik.engine.scheduler import Scheduler
from spoutnik.engine.speculative import Drafter, MTPProposer, NgramProposer
from spoutnik.errors import UserError
from spoutnik.loading import find_tokenizer, load_adapted
from spoutnik.locate import locate, path_of
from spoutnik.model.adapter_file import Adapter
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import LowRank, adapters_of
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.text.tokenizer import Message, Tokenizer

_SPECULATE_UP_TO = 8
NO_DRAFTS = "Nothing is drafted: the model lies in the processor's caches, where a draft costs more than it saves."


class LLM:
    """A model with an engine that generates with it.

    Args:
        model: a folder in Hugging Face layout, a run's folder, "org/model" on the hub, a Transformer in memory (whose later
            changes have no effect here), or a Runner.
        tokenizer: None takes the folder's, if it has one; token ids need none.
        adapter: a folder that PEFT wrote for this model, which is a folder: what runs is their sum.
        adapters: such folders by name, unmerged: each request has one (`adapter`) or is the base's, all in one batch.
        dtype, device: of weights and cache. dtype "auto" is bfloat16 where the native kernels run or the device
            multiplies it, else float32. device "auto" is the GPU where there is one, and nothing is quantized; None is the CPU.
            A Transformer has its own.
        quantize: "int8" or "int4" weights, None for none.
        memory: limit for weights and cache together, as "16GB" or bytes; None takes a part of what is free.
        max_model_len: tokens that prompt and completion may have together; None takes the model's positions.
        max_num_seqs: sequences decoded at the same time. max_num_batched_tokens: tokens computed in one step.
        speculate: "mtp" drafts with the model's own MTP module, "prompt_lookup" from earlier text: the same tokens in fewer
            steps. num_speculative_tokens: drafts per row and step. speculate_up_to: no drafts with more rows; None is 8 where
            weights are read from memory, 0 where the model fits into the processor's caches: there a further token in a step
            costs more than it saves (docs/results.md).
        enable_prefix_caching: common beginnings of prompts are computed once.
        eos_token_ids: tokens that end a completion; None takes the tokenizer's, or the configuration's.
        logprobs_mode: "raw_logprobs" or "processed_logprobs", of requests that do not say it (see SamplingParams).
        seed: of requests that have none (see `row_seed`).
        progress: called with (bytes done, bytes in all) while weights are quantized for the first time.
    Raises:
        UserError, RunError: a sentence with the key, the value and the remedy.
    """

    def __init__(self, model: str | Path | Transformer | Runner, tokenizer: Tokenizer | None = None, *,
                 adapter: str | Path | None = None, adapters: Mapping[str, str | Path] | None = None,
                 dtype: str | torch.dtype = "auto", device: str | torch.device | None = None,
                 quantize: str | None = None, memory: str | int | None = None, max_model_len: int | None = None,
                 max_num_seqs: int = 256, max_num_batched_tokens: int = 2048,
                 speculate: str | None = None, num_speculative_tokens: int = 1, speculate_up_to: int | None = None,
                 enable_prefix_caching: bool = True, eos_token_ids: Sequence[int] | None = None,
                 logprobs_mode: str = RAW_LOGPROBS, seed: int = 0,
                 progress: Callable[[int, int], None] | None = None):
        memory = bytes_of(memory)
        check_logprobs_mode(logprobs_mode)
        self._folder: Path | None = None
        self._merged = adapter is not None or isinstance(model, Transformer) and bool(adapters_of(model))
        self.adapter: LoadedAdapter | None = None  # of requests that name none; see `with_adapter`
        unmerged = self._read_all(adapters or {}, model)
        if isinstance(model, str | Path):
            self._folder = folder = locate(model)
            device = device_of(device, quantize)
            dtype = dtype_of(dtype, device)
            tokenizer = tokenizer or find_tokenizer(folder)
            check_speculation(speculate, num_speculative_tokens, ModelConfig.load(folder))
            source = folder if adapter is None else load_adapted(folder, path_of(adapter), dtype, device)
            runner = make_runner(source, quantize, memory, dtype, device, progress)
        elif adapter is not None:
            raise UserError(f"adapter = {str(adapter)!r}: is of a model's folder. Give that, or a model with its adapters.")
        elif dtype != "auto" or device is not None:
            raise UserError("dtype and device are those of the model given: leave them out, or give a folder.")
        else:
            check_speculation(speculate, num_speculative_tokens, model.config)
            runner = make_runner(model, quantize, memory) if isinstance(model, Transformer) else model
        self.config = runner.config
        self._max_model_len = check_max_model_len(max_model_len, self.config)
        self.tokenizer, self.seed = tokenizer, seed
        if speculate_up_to is None:
            speculate_up_to = _SPECULATE_UP_TO if runner.max_multi_steps == 1 else 0
        drafting = speculate is not None and speculate_up_to > 0
        mtp = drafting and speculate == "mtp"
        num_blocks = num_cache_blocks(runner, memory, max_num_seqs, mtp)
        scheduler = Scheduler(num_blocks, max_num_seqs, max_num_batched_tokens, enable_prefix_caching)
        runner.allocate(num_blocks, mtp)
        drafter: Drafter | None = None
        if drafting:
            drafter = (MTPProposer(runner, num_speculative_tokens, speculate_up_to) if mtp else
                       NgramProposer(num_speculative_tokens, speculate_up_to))
        if eos_token_ids is None:
            eos_token_ids = self.config.eos_token_ids if tokenizer is None else tokenizer.eos_ids
        self.core = EngineCore(runner, scheduler, eos_token_ids, tokenizer, drafter, logprobs_mode=logprobs_mode)
        self._num_requests = 0
        for name, read in unmerged.items():
            self.core.adapters.add(self.core.adapters.pack(name, read.parts))

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and completion may have together: as many as were asked for, or what the cache holds if less."""
        return min(self._max_model_len, self.core.scheduler.pool.num_slots)

    def load_adapter(self, name: str, source: str | Path | Mapping[str, LowRank]) -> LoadedAdapter:
        """Makes an adapter ready for requests, between two steps. source: a folder that PEFT or Spoutnik wrote for this model
        (where it holds a hash of its base's weights, that is compared with the folder that this base came from), or the trained
        parts themselves, which are copied.

        Raises:
            UserError: the name is taken, or the adapter cannot be computed beside this base (DoRA, routed experts, another
                base): merge it at load (`adapter`).
            RunError: its files are damaged.
        """
        self.core.adapters.check_name(name)
        loaded = self.prepare_adapter(name, source)
        self.core.adapters.add(loaded)
        return loaded

    def prepare_adapter(self, name: str, source: str | Path | Mapping[str, LowRank]) -> LoadedAdapter:
        """The work of `load_adapter`, in any thread, without making it known (`core.adapters.add`)."""
        self._refuse_merged()
        if isinstance(source, Mapping):
            adapter = Adapter(dict(source))
            check_adapter(adapter, self.config, name)
        else:
            load_base = None if self._folder is None else lambda: load_model(self._folder, None, mapped=True)
            adapter = read_for(self.config, source, load_base)
        return self.core.adapters.pack(name, adapter.parts)

    def unload_adapter(self, name: str) -> None:
        """Requests that have it go on with it; new ones cannot name it. Raises UserError: there is none of this name."""
        self.core.adapters.remove(name)

    def with_adapter(self, name: str | None) -> "LLM":
        """The same engine for requests that have this adapter where they name none. It stays theirs when it is unloaded."""
        view = copy(self)
        view.adapter = self.core.adapters.find(name)
        return view

    def _read_all(self, adapters: Mapping[str, str | Path], model: str | Path | Transformer | Runner) -> dict[str, Adapter]:
        """What is wrong with an adapter is said before the model's weights are read."""
        if not adapters:
            return {}
        self._refuse_merged()
        if isinstance(model, str | Path):
            folder = locate(model)
            config, load_base = ModelConfig.load(folder), lambda: load_model(folder, None, mapped=True)
        else:
            config, load_base = model.config, (lambda: model) if isinstance(model, Transformer) else None
        return {name: read_for(config, path, load_base) for name, path in adapters.items()}

    def _refuse_merged(self) -> None:
        if self._merged:
            raise UserError("adapters: the base of this engine is summed with one already, which leaves no base for others. "
                            "Give that one by name too (adapters), or leave it out.")

    def generate(self, prompts: Prompt | Sequence[Prompt],
                 sampling_params: SamplingParams | Sequence[SamplingParams] | None = None, *, parse_special: bool = False,
                 seed: int | None = None, adapter: str | Sequence[str | None] | None = None,
                 on_progress: Callable[[int, int], None] | None = None) -> list[RequestOutput]:
        """Completions of one prompt or several, in their order.

        Args:
            prompts: texts, lists of token ids, or {"prompt_token_ids": [...]}.
            sampling_params: one for all prompts or one for each; None takes `get_default_sampling_params`.
            parse_special: special tokens that a text spells are read as such, as in a conversation that a template rendered;
                else they are plain text, as in what users type.
            seed: random numbers depend on (seed, index of the prompt in this call, index of the sample) alone; None takes the
                LLM's seed and counts prompts from call to call. SamplingParams.seed takes precedence.
            adapter: the name of one of the adapters, for all prompts or for each; None is the base.
            on_progress: called after each step with the numbers of tokens generated and of samples that ended.
        Raises:
            UserError: a prompt or its parameters cannot be served; raised before any work begins.
            RunError: all requests failed (logits that are not finite).
        """
        return self.run(self.requests_of(prompts_of(prompts), sampling_params, seed, parse_special, adapter), on_progress)

    def get_default_sampling_params(self) -> SamplingParams:
        """What holds where no sampling_params are given: those of generation_config.json in the model's folder, else R1's."""
        return SamplingParams() if self._folder is None else SamplingParams(**generation_defaults(self._folder))

    def chat(self, messages: Sequence[Message] | Sequence[Sequence[Message]],
             sampling_params: SamplingParams | Sequence[SamplingParams] | None = None, *, tools: Sequence | None = None,
             variables: Mapping[str, object] | None = None, seed: int | None = None,
             adapter: str | Sequence[str | None] | None = None,
             on_progress: Callable[[int, int], None] | None = None) -> list[RequestOutput]:
        """The assistant's next message in one conversation or several; otherwise as `generate`. tools, variables: see
        `Tokenizer.render`."""
        prompts = [self._chat_prompt(m, tools, variables) for m in conversations_of(messages)]
        return self.run(self.requests_of(prompts, sampling_params, seed, adapter=adapter), on_progress)

    def stream(self, prompt: Prompt | Sequence[Message], sampling_params: SamplingParams | None = None, *,
               tools: Sequence | None = None, variables: Mapping[str, object] | None = None, parse_special: bool = False,
               seed: int | None = None, adapter: str | None = None) -> Iterator[RequestOutput]:
        """One request as it is generated (arguments as in `generate` and `chat`): each RequestOutput holds what is new since
        the last (text, token ids and log-probabilities of the samples that have any); the last one is `finished`. Leaving the
        loop aborts the request."""
        if isinstance(prompt, Sequence) and not isinstance(prompt, str) and prompt and isinstance(prompt[0], Mapping):
            prompt = self._chat_prompt(prompt, tools, variables)
        request, = self.requests_of([prompt], sampling_params, seed, parse_special, adapter)
        request.stream = True
        return self._stream(request)

    @torch.no_grad()
    def embed(self, prompts: Prompt | Sequence[Prompt], *, parse_special: bool = False,
              adapter: str | None = None) -> torch.Tensor:
        """(n, hidden_size) float32: each prompt's mean hidden state, of length 1. parse_special, adapter: as in `generate`."""
        ids = [tokens_of(prompt, self.tokenizer, parse_special)[1] for prompt in prompts_of(prompts)]
        for prompt in ids:
            check(prompt, SamplingParams(max_tokens=1), self.config, self.tokenizer, self._max_model_len)
        return torch.stack([_result(self.embed_in_pieces(prompt, adapter)) for prompt in ids])

    @torch.no_grad()
    def embed_in_pieces(self, prompt: list[int], adapter: str | None = None) -> Generator[None, None, torch.Tensor]:
        """`embed` of one text's ids, a bounded number of tokens with each `next` (engine/pooling.py): the engine may step
        between two. One at a time."""
        loaded = self._adapter(adapter)
        self.core.adapters.acquire(loaded)
        try:
            number = -1 if loaded is None else loaded.number
            return (yield from embed_in_pieces(self.core.runner, self.core.scheduler, prompt, number))
        finally:
            self.core.adapters.release(loaded)

    def abort(self, request_id: str) -> None:
        """Ends a request; its outputs hold what it has generated, with finish_reason "abort"."""
        self.core.abort(request_id)

    def _chat_prompt(self, messages: Sequence[Message], tools: Sequence | None, variables: Mapping[str, object] | None) -> dict:
        if self.tokenizer is None:
            raise UserError("a conversation needs a tokenizer, and this model came without one. Give LLM(..., tokenizer=...).")
        return {"prompt_token_ids": self.tokenizer.chat_ids(messages, tools, variables=variables)}

    def _adapter(self, name: str | None) -> LoadedAdapter | None:
        return self.adapter if name is None else self.core.adapters.find(name)

    def requests_of(self, prompts: list[Prompt], sampling_params: object, seed: int | None, parse_special: bool = False,
                    adapter: str | Sequence[str | None] | None = None, numbers: Sequence[int] | None = None) -> list[Request]:
        """The requests of `generate`, all of them checked before any begins. numbers: of the prompts, where they are some of a
        larger list whose others are sampled elsewhere."""
        requests = []
        names = [adapter] * len(prompts) if adapter is None or isinstance(adapter, str) else list(adapter)
        if len(names) != len(prompts):
            raise UserError(f"adapter: {len(names)} names for {len(prompts)} prompts. Give one for all, or one for each.")
        loaded = [self._adapter(name) for name in names]
        all_params = params_of(sampling_params, len(prompts), self.get_default_sampling_params())
        for index, (prompt, params) in enumerate(zip(prompts, all_params)):
            number = index if numbers is None else numbers[index]
            text, ids = tokens_of(prompt, self.tokenizer, parse_special)
            check(ids, params, self.config, self.tokenizer, self._max_model_len)
            self.core.scheduler.check_fits(len(ids), params.max_tokens)
            if params.seed is not None:
                seeds = params.seed, 0
            elif seed is not None:
                seeds = seed, number
            else:
                seeds = self.seed, self._num_requests + number
            requests.append(Request(str(next(self.core.request_ids)), text, ids, params, *seeds, adapter=loaded[index]))
        self._num_requests += len(requests)
        return requests

    def run(self, requests: list[Request], on_progress: Callable[[int, int], None] | None,
            generated: Sequence[list[CompletionOutput]] = ()) -> list[RequestOutput]:
        """Generates what `requests_of` made. generated: for each, what its samples already have (`EngineCore.add`)."""
        for number, request in enumerate(requests):
            self.core.add(request, generated[number] if generated else None)
        try:
            for request in requests:
                while request.unfinished:
                    output = self.core.step()
                    if on_progress is not None:
                        on_progress(output.tokens, len(output.ended))
        except BaseException:
            for request in requests:
                self.core.abort(request.request_id)
            raise
        outputs = [request.output([sample.output(self.tokenizer) for sample in request.samples]) for request in requests]
        raise_if_all_failed(outputs)
        return outputs

    def _stream(self, request: Request) -> Iterator[RequestOutput]:
        self.core.add(request)
        try:
            finished = False
            while not finished:
                if request.unfinished:  # steps of other calls may have ended it
                    self.core.step()
                finished = not request.unfinished
                new = [self.core.new_output(sample) for sample in request.samples]
                output = request.output([output for output in new if output is not None])
                raise_if_all_failed([output])
                if output.outputs or finished:
                    yield output
        finally:
            self.core.abort(request.request_id)


def _result(pieces: Generator[None, None, torch.Tensor]) -> torch.Tensor:
    """Of something computed in pieces, all of them now."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value
