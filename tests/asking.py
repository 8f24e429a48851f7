"""Requests to a small engine. Shared by the tests."""

import tiny

from spoutnik import LLM, SamplingParams

EOS = 1


def prompts(count: int, longest: int = 20) -> list[list[int]]:
    return [tiny.tokens(1 + 7 * i % longest, seed=i).tolist() for i in range(count)]


def llm(base=tiny.QWEN, model=None, **options) -> LLM:
    return LLM(tiny.model(base) if model is None else model, **{"eos_token_ids": [EOS]} | options)


def tokens_of(outputs):
    return [[c.token_ids for c in output.outputs] for output in outputs]


def sampled(**changes) -> SamplingParams:
    return SamplingParams(**{"temperature": 1.0, "top_p": 1.0, "max_tokens": 20} | changes)


def memory_for(engine: LLM, blocks: int) -> int:
    runner = engine.core.runner
    return runner.weights_nbytes + blocks * runner.bytes_per_block()
