"""No thought in an answer and no empty answer, whatever is asked for. `benchmarks/hostile_requests.py` asks ten thousand
times."""

import asyncio

import tiny
from hostile import attack
from listening import listening

from spoutnik.engine.llm import LLM
from spoutnik.serve.app import make_app
from spoutnik.serve.settings import Settings


def test_no_thought_leaks_and_no_answer_is_empty(make_service, tokenizer):
    """Of two models with random weights, one of them with few places for its replies."""
    def load(served):
        base, positions = (tiny.DEEPSEEK, 256) if served.id == "deepseek" else (tiny.QWEN, 512)
        model = tiny.model(base, vocab_size=tokenizer.vocab_size, max_position_embeddings=positions)
        return LLM(model, tokenizer, max_num_seqs=16, memory="64MB")

    service = make_service(("deepseek", "qwen"), load=load)
    with listening(make_app(service, Settings(shutdown_seconds=0.0))) as url:
        outcome = asyncio.run(attack(url, service, 150))
    assert outcome.requests == 150 and not outcome.failures, outcome.failures[:3]
