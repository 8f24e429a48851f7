"""Generation: one loop for training rollouts, evaluation and chat.

Prompts are prefilled once and their cache rows copied for the group's samples; rows that finish leave the batch and
waiting ones take their place; the batch is split over the cores.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spoutnik.engine.native_decoder import NativeDecoder
from spoutnik.engine.sampling import SamplingParams, sample, uniforms
from spoutnik.engine.speculative import SpeculativeDecoder
from spoutnik.errors import UserError
from spoutnik.model.cache import Cache
from spoutnik.model.packing import Packing
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import cores, on_all_cores

# Finished rows are squeezed out of the batch once they are this share of it: copying the cache is not free either.
_COMPACT_AT = 0.125
_ROW_MULTIPLE = 16


@dataclass
class Completion:
    """One sampled continuation. token_ids without the end of sentence; logprobs has one more entry where it was sampled.

    finish_reason: "stop" (end of sentence) or "length" (max_tokens reached).
    """

    prompt: int  # index of its prompt
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = ""

    @property
    def finished(self) -> bool:
        return self.finish_reason == "stop"


class Engine:
    """Holds a model ready to decode: weights cast once to the type they are computed in.

    eos_ids: the token, or the several, that end a completion. max_rows: sequences decoded together on one core. It bounds
    the cache's memory, and nothing else depends on it.
    """

    def __init__(self, model: Transformer, eos_ids: int | Sequence[int], max_rows: int = 320):
        self.model = inference_copy(model)
        self.eos_ids = torch.tensor([eos_ids] if isinstance(eos_ids, int) else eos_ids)
        self.max_rows = max_rows
        self.native = NativeDecoder(self.model) if NativeDecoder.serves(self.model) else None

    def generate(self, prompts: list[list[int]], params: SamplingParams, n: int = 1, seed: int = 0,
                 on_tokens: Callable[[int, int], None] | None = None) -> list[list[Completion]]:
        """n completions for each prompt (token ids). `on_tokens(tokens, finished)` hears what each step made.

        The same (seed, prompt number, sample number) gives the same random numbers, whatever the batch.
        """
        self.check(prompts, params)
        # Dealt out longest prompts first, so that cores and steps carry alike.
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        shares = [order[core::cores()] for core in range(min(cores(), len(order)))]
        groups = [[Completion(i) for _ in range(n)] for i in range(len(prompts))]

        def work(share: list[int]) -> None:
            _Batch(self, prompts, groups, params, seed).run(share, on_tokens or (lambda tokens, finished: None))

        on_all_cores(work, shares)
        return groups

    def stream(self, prompt: list[int], params: SamplingParams, seed: int = 0, speculate: bool = False) -> Iterator[int]:
        """The tokens of one completion as they come (chat). With `speculate`, the MTP module drafts: the same tokens."""
        self.check([prompt], params)
        seeds = row_seeds(seed, torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
        tokens = (self._drafted if speculate else self._one_by_one)(prompt, params, seeds)
        for _, token in zip(range(params.max_tokens), tokens):
            if token in self.eos_ids:
                return
            yield token

    def _one_by_one(self, prompt: list[int], params: SamplingParams, seeds: Tensor) -> Iterator[int]:
        cache = Cache.empty(self.model.config, 1, len(prompt) + params.max_tokens, self.model.compute_dtype)
        logits = self.model.logits(self.model.prefill(torch.tensor(prompt), Packing.of([len(prompt)]), cache))
        for position in range(params.max_tokens):
            token, _ = sample(logits, params, seeds, torch.tensor([position]))
            yield int(token)
            logits = self.step(token, cache)

    def _drafted(self, prompt: list[int], params: SamplingParams, seeds: Tensor) -> Iterator[int]:
        decoder = SpeculativeDecoder(self.model, [prompt], params, seeds, self.eos_ids)
        yield int(decoder.tokens)
        while bool(decoder.alive):
            chosen, counts = decoder.step()
            yield from chosen[0, :int(counts)].tolist()

    @torch.no_grad()
    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """One new token per cache row: tokens (B,) to logits (B, vocabulary)."""
        if self.native is not None:
            return self.native.logits(tokens, cache)
        return self.model.logits(self.model.decode(tokens, cache))

    def check(self, prompts: list[list[int]], params: SamplingParams) -> None:
        limit = self.model.config.max_position_embeddings
        longest = max((len(p) for p in prompts), default=0)
        if any(not p for p in prompts):
            raise UserError("a prompt is empty: give it at least one token.")
        if longest + params.max_tokens > limit:
            raise UserError(f"max_tokens = {params.max_tokens}: with a prompt of {longest} tokens it passes the model's "
                            f"{limit} positions. Lower max_tokens to {max(limit - longest, 0)} or shorten the prompt.")


def inference_copy(model: Transformer) -> Transformer:
    """The same network with its weights in the compute type (the routers' biases stay float32), no gradients. A model that
    is frozen and in that type already is its own copy."""
    if not any(p.requires_grad for p in model.parameters()) and model.embed_tokens.weight.dtype == model.compute_dtype:
        return model
    with torch.device("meta"):
        copy = Transformer(model.config, model.compute_dtype, model.rotary)
    state = {name: t.detach().clone() if name.endswith("e_score_correction_bias")
             else t.detach().to(model.compute_dtype, copy=True) for name, t in model.state_dict().items()}
    copy.load_state_dict(state, assign=True)
    return copy.requires_grad_(False)


def row_seeds(seed: int, prompts: Tensor, samples: Tensor) -> Tensor:
    """(B,) one 64-bit seed per row from the run's seed, the prompt's number and the sample's number in its group."""
    mixed = uniforms(torch.full_like(prompts, seed), prompts * 100_003 + samples)
    return (mixed * 2.0 ** 53).long()


class _Batch:
    """The rows one core decodes together. What they generate stays in tensors until a row leaves."""

    def __init__(self, engine: Engine, prompts: list[list[int]], groups: list[list[Completion]], params: SamplingParams,
                 seed: int):
        self.engine, self.model, self.params, self.seed = engine, engine.model, params, seed
        self.prompts, self.groups = prompts, groups
        self.cache: Cache | None = None
        self.rows: list[Completion] = []
        self.seeds = torch.empty(0, dtype=torch.long)
        self.positions = torch.empty(0, dtype=torch.long)  # how many tokens each row has generated
        self.tokens = torch.empty(0, dtype=torch.long)  # the last of them
        self.alive = torch.empty(0, dtype=torch.bool)
        # All of them; one place more than a row may fill, where rows that have ended keep writing.
        self.all_tokens = torch.empty(0, params.max_tokens + 1, dtype=torch.long)
        self.all_logprobs = torch.empty(0, params.max_tokens + 1)

    @torch.no_grad()
    def run(self, waiting: list[int], on_tokens: Callable[[int, int], None]) -> None:
        waiting = list(reversed(waiting))
        while waiting or self.rows:
            admitted = self._take(waiting)
            if admitted:
                self._admit(admitted)
            while self.rows and not self._should_compact():
                before = int(self.alive.sum())
                self.cache.lengths[~self.alive] = 0  # dead rows write over themselves, never past the cache's end
                self._accept(self.engine.step(self.tokens, self.cache))
                on_tokens(before, before - int(self.alive.sum()))
            self._compact()

    def _take(self, waiting: list[int]) -> list[int]:
        """Prompts whose whole group fits; at least one if the batch is empty."""
        taken, n = [], len(self.groups[0])
        while waiting and (not self.rows and not taken or len(self.rows) + (len(taken) + 1) * n <= self.engine.max_rows):
            taken.append(waiting.pop())
        return taken

    def _admit(self, prompts: list[int]) -> None:
        """Prefills each prompt once and opens a row for every sample of its group."""
        lengths = [len(self.prompts[i]) for i in prompts]
        capacity = max(lengths) + self.params.max_tokens
        fresh = Cache.empty(self.model.config, len(prompts), capacity, self.model.compute_dtype)
        packing = Packing.of(lengths, fill=True)
        ids = torch.tensor([t for i in prompts for t in self.prompts[i]] + [0] * packing.filler)
        hidden = self.model.prefill(ids, packing, fresh)
        n = len(self.groups[0])
        shared = torch.arange(len(prompts)).repeat_interleave(n)
        fresh = fresh.select(shared)
        self.cache = fresh if not self.rows else _stacked(self.cache, fresh)
        self.rows += [completion for i in prompts for completion in self.groups[i]]
        seeds = row_seeds(self.seed, torch.tensor(prompts).repeat_interleave(n), torch.arange(n).repeat(len(prompts)))
        first, logprobs = sample(self.model.logits(hidden)[shared], self.params, seeds, torch.zeros_like(seeds))
        self.seeds = torch.cat([self.seeds, seeds])
        self.positions = torch.cat([self.positions, torch.zeros_like(seeds)])
        self.tokens = torch.cat([self.tokens, first])
        self.alive = torch.cat([self.alive, torch.ones_like(seeds, dtype=torch.bool)])
        self.all_tokens, self.all_logprobs = (torch.cat([held, held.new_empty(len(seeds), held.shape[1])])
                                              for held in (self.all_tokens, self.all_logprobs))
        self._record(torch.arange(len(self.rows) - len(seeds), len(self.rows)), first, logprobs)

    def _accept(self, logits: Tensor) -> None:
        """Samples the next token of every row and writes down what came."""
        self.tokens, logprobs = sample(logits, self.params, self.seeds, self.positions)
        self._record(torch.arange(len(self.rows)), self.tokens, logprobs)

    def _record(self, rows: Tensor, tokens: Tensor, logprobs: Tensor) -> None:
        at = rows, self.positions[rows]
        self.all_tokens[at], self.all_logprobs[at] = tokens, logprobs
        self.positions[rows] += self.alive[rows]
        self.alive[rows] &= ~torch.isin(tokens, self.engine.eos_ids) & (self.positions[rows] < self.params.max_tokens)

    def _should_compact(self) -> bool:
        alive = int(self.alive.sum())
        return alive == 0 or len(self.rows) - alive > max(_COMPACT_AT * len(self.rows), _ROW_MULTIPLE)

    def _compact(self) -> None:
        for row in (~self.alive).nonzero()[:, 0].tolist():
            self._finish(row)
        keep = self.alive.nonzero()[:, 0]
        # Some dead rows stay as filler: batches come in multiples of 16, whose kernels oneDNN has already compiled.
        spare = (~self.alive).nonzero()[:-len(keep) % _ROW_MULTIPLE, 0] if len(keep) else keep
        keep = torch.cat([keep, spare])
        self.cache = self.cache.select(keep)
        self.rows = [self.rows[i] for i in keep.tolist()]
        self.seeds, self.positions, self.tokens, self.alive, self.all_tokens, self.all_logprobs = (held[keep] for held in (
            self.seeds, self.positions, self.tokens, self.alive, self.all_tokens, self.all_logprobs))

    def _finish(self, row: int) -> None:
        """Hands a dead row's tokens to its completion (a second time to the same effect, where it stayed as filler)."""
        completion, count = self.rows[row], int(self.positions[row])
        tokens = self.all_tokens[row, :count].tolist()
        completion.logprobs = self.all_logprobs[row, :count].tolist()
        completion.finish_reason = "stop" if tokens[-1] in self.engine.eos_ids else "length"
        completion.token_ids = tokens[:-1] if completion.finished else tokens


def _stacked(first: Cache, second: Cache) -> Cache:
    """The rows of both caches in one, as long as the longer of them."""
    capacity = max(first.layers[0].shape[1], second.layers[0].shape[1])

    def grown(store: Tensor) -> Tensor:
        return torch.nn.functional.pad(store, (0, 0, 0, capacity - store.shape[1]))

    return Cache([torch.cat([grown(a), grown(b)]) for a, b in zip(first.layers, second.layers)],
                 torch.cat([first.lengths, second.lengths]))
