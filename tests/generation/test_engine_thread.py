"""Whatever goes wrong in the engine's thread, whoever waits hears of it, and the thread goes on."""

import threading

import pytest
import tiny

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.generation.completion import CompletionPlan, Completions
from spoutnik.generation.engine_thread import EngineThread
from spoutnik.generation.generation import Generation
from spoutnik.generation.options import GenerationOptions, plan_chat
from spoutnik.generation.prefix_warmer import PrefixWarmer

ASK = [{"role": "user", "content": "How many?"}]
SECONDS = 20


def small(blocks: int) -> LLM:
    """A model whose cache holds fewer tokens than it has positions."""
    llm = LLM(tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=4096), tiny.tokenizer(), max_num_seqs=4)
    llm.core.scheduler.pool = type(llm.core.scheduler.pool)(blocks)
    return llm


@pytest.fixture(scope="module")
def llm():
    return LLM(tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=256), tiny.tokenizer(), max_num_seqs=4)


@pytest.fixture
def start_thread():
    """Starts engine threads, and stops them."""
    threads = []

    def start(llm, on_idle=lambda: None):
        threads.append(EngineThread(llm, on_idle))
        return threads[-1]

    yield start
    for engine_thread in threads:
        engine_thread.close()


class Listener:
    """Waits for the end of one reply."""

    def __init__(self):
        self.deltas, self._over = [], threading.Event()

    def __call__(self, deltas):
        self.deltas += deltas
        if any(delta.finish_reason for delta in deltas):
            self._over.set()

    @property
    def last(self):
        assert self._over.wait(SECONDS), "nobody said that it is over"
        return self.deltas[-1]


def begun(engine_thread, llm, job=Generation, max_tokens=20):
    listener, params = Listener(), SamplingParams(seed=1, max_tokens=max_tokens)
    options = GenerationOptions(params, max_tokens=max_tokens)
    plan = CompletionPlan([[5, 6, 7]], params, 0) if issubclass(job, Completions) else plan_chat(llm, ASK, options)
    engine_thread.add_job(job(llm, f"job-{id(listener)}", plan, listener))
    return listener


def broken(plain, place):
    def fail(self, *_):
        raise ZeroDivisionError("a secret"[::-1])

    return type("Broken", (plain,), {place: fail})


@pytest.mark.parametrize("plain", [Generation, Completions])
@pytest.mark.parametrize("place", ["start", "advance"])
def test_a_job_that_fails_fails_alone(llm, start_thread, caplog, plain, place):
    engine_thread = start_thread(llm)
    good = begun(engine_thread, llm)
    bad = begun(engine_thread, llm, broken(plain, place))
    assert bad.last.finish_reason == "error" and "ZeroDivisionError" in bad.last.stop_reason
    assert "terces a" not in bad.last.stop_reason + caplog.text and "ZeroDivisionError" in caplog.text
    assert good.last.finish_reason in ("stop", "length") and begun(engine_thread, llm).last.finish_reason in ("stop", "length")
    assert engine_thread.broken is None and engine_thread.submit(lambda: len(llm.core.requests)).result(SECONDS) == 0


def test_a_job_whose_end_fails_too_takes_nobody_with_it(llm, start_thread):
    engine_thread = start_thread(llm)
    begun(engine_thread, llm, broken(broken(Generation, "advance"), "fail"))
    assert begun(engine_thread, llm).last.finish_reason in ("stop", "length")


def test_what_is_done_ahead_of_time_may_fail(llm, start_thread):
    engine_thread = start_thread(llm, on_idle=lambda: 1 / 0)
    assert begun(engine_thread, llm).last.finish_reason in ("stop", "length")


def test_a_broken_engine_tells_those_who_come_later_too(llm, start_thread, monkeypatch):
    engine_thread = start_thread(llm)
    monkeypatch.setattr(llm.core, "step", lambda: 1 / 0)
    for _ in range(2):
        assert begun(engine_thread, llm).last.finish_reason == "error"
    assert "ZeroDivisionError" in engine_thread.broken


# What the cache cannot hold would wait for ever, at the head of the line


def test_a_long_conversation_is_not_prepared(start_thread):
    llm = small(blocks=8)
    warmer, capacity = PrefixWarmer(llm), llm.max_model_len
    engine_thread = start_thread(llm, warmer.warm_next)
    answer = "a " * capacity
    engine_thread.submit(lambda: warmer.add([*ASK, {"role": "assistant", "content": answer}], {})).result(SECONDS)
    assert begun(engine_thread, llm).last.finish_reason in ("stop", "length")


def test_what_is_put_into_a_thought_must_fit_the_cache(start_thread):
    llm = small(blocks=8)
    capacity = llm.max_model_len
    engine_thread, listener = start_thread(llm), Listener()
    bias = {token: -100 for token in (*llm.tokenizer.eos_ids, llm.tokenizer.end_think_id)}
    plan = plan_chat(llm, ASK, GenerationOptions(SamplingParams(seed=1, logit_bias=bias), detect_loops=False))
    reply = Generation(llm, "r", plan, listener)
    engine_thread.add_job(reply)
    for _ in range(8):
        engine_thread.submit(lambda: reply.insert(" hm" * (capacity // 12))).result(SECONDS)
    assert listener.last.finish_reason == "length" and reply.choices[0].has_answer
    assert len(plan.prompt) + len(reply.choices[0].ids) <= capacity


def test_a_model_that_wants_to_think_again_and_again_answers_all_the_same(llm):
    """Each thought that was closed cost places, until none was left for an answer."""
    begin, end = llm.tokenizer.think_id, llm.tokenizer.end_think_id
    for bias in ({begin: 100}, {begin: 100, end: -100}, {begin: 8, end: 8}):
        for more in ({}, {"max_tokens": 3}, {"max_thinking_tokens": 0}, {"max_thinking_tokens": 5}, {"enable_thinking": False}):
            deltas = []
            plan = plan_chat(llm, ASK, GenerationOptions(SamplingParams(seed=1, logit_bias=bias), **more))
            reply = Generation(llm, "r", plan, deltas.extend)
            reply.start()
            while not reply.done:
                assert llm.core.requests
                llm.core.step()
                reply.advance()
            choice, = reply.choices
            assert "".join(delta.answer for delta in deltas).strip(), (bias, more)
            assert choice.generated <= plan.params.max_tokens
            assert len(plan.prompt) + len(choice.ids) <= llm.config.max_position_embeddings
            assert plan.may_think or not "".join(delta.thought for delta in deltas)


def test_long_work_is_done_piece_by_piece_between_two_steps(llm, start_thread):
    """However many works wait: between two pieces there is a step while something is generated."""
    events, step = [], llm.core.step

    def pieces(name, fails=False):
        for _ in range(3):
            events.append(name)
            if fails:
                raise RunError("no room")
            yield
        return name

    llm.core.step = lambda: (events.append("step"), step())[1]
    engine_thread = start_thread(llm)
    try:
        holds = threading.Event()
        engine_thread.submit(lambda: holds.wait(SECONDS))
        listener = begun(engine_thread, llm, max_tokens=100)
        futures = [engine_thread.submit_pieces(pieces(name, name == "b")) for name in "abcd"]
        futures[3].cancel()
        holds.set()
        assert [futures[0].result(SECONDS), futures[2].result(SECONDS)] == ["a", "c"]
        with pytest.raises(RunError, match="no room"):
            futures[1].result(SECONDS)
        assert listener.last.finish_reason is not None
        assert engine_thread.submit_pieces(pieces("e")).result(SECONDS) == "e"  # also when nothing is generated
    finally:
        llm.core.step = step
    while_generating = events[:len(events) - events[::-1].index("step")]
    assert [event for event in events if event != "step"] == list("aaabccceee") and "d" not in events
    works = [place for place, event in enumerate(while_generating) if event != "step"]
    assert all(later - earlier > 1 for earlier, later in zip(works, works[1:])) and len(works) == 7


def test_long_work_that_is_given_up_or_stopped_gives_back_what_it_holds(llm, start_thread):
    engine_thread, pool = start_thread(llm), llm.core.scheduler.pool
    free, ids, begun = pool.num_free_blocks, list(range(200)), threading.Event()

    def pieces():
        work = llm.embed_in_pieces(ids)
        try:
            next(work)
            begun.set()
            while True:
                yield
        finally:
            work.close()

    future = engine_thread.submit_pieces(pieces())
    assert begun.wait(SECONDS) and pool.num_free_blocks < free
    future.cancel()
    assert engine_thread.submit_pieces(llm.embed_in_pieces(ids)).result(SECONDS).shape == (32,)
    assert pool.num_free_blocks == free
    begun.clear()
    last = engine_thread.submit_pieces(pieces())
    assert begun.wait(SECONDS)
    engine_thread.close()
    with pytest.raises(RunError, match="stopped"):
        last.result(SECONDS)
    with pytest.raises(RunError, match="stopped"):
        engine_thread.submit_pieces(pieces()).result(SECONDS)
    assert pool.num_free_blocks == free
