"""The thread that computes: who is handed out when, and that nobody waits for ever."""

import asyncio
import time

import pytest
import tiny

from spoutnik.engine.llm import LLM
from spoutnik.engine.request import Request
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.generation import engine_thread as module
from spoutnik.generation.engine_thread import EngineThread
from spoutnik.generation.prefix_warmer import PrefixWarmer


@pytest.fixture(scope="module")
def llm():
    model = tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=512)
    return LLM(model, tiny.tokenizer(), max_num_seqs=8, memory="64MB")


@pytest.fixture
def engine_thread(llm):
    thread = EngineThread(llm)
    yield thread
    thread.close()


class Counted:
    """A job of one request. news: how many tokens came at a time."""

    def __init__(self, llm, tokens):
        params = SamplingParams(max_tokens=tokens, ignore_eos=True)
        self.core, self.news, self.failed = llm.core, [], None
        self.request = Request(f"counted/{id(self)}", None, [5, 6, 7], params, 0, 0, owner=self)

    @property
    def done(self):
        return self.failed is not None or bool(self.request.samples and self.request.samples[0].finish_reason)

    def start(self):
        self.core.add(self.request)

    def advance(self):
        self.news.append(len(self.core.new_tokens(self.request.samples[0])[0]))

    def fail(self, reason):
        self.failed = reason


def run(engine_thread, *jobs, seconds=20.0):
    for job in jobs:
        engine_thread.add_job(job)
    deadline = time.monotonic() + seconds
    while engine_thread.submit(lambda: bool(engine_thread.jobs)).result(seconds):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_one_reply_gets_its_first_token_at_once_and_all_of_it(engine_thread, llm):
    job = Counted(llm, 40)
    run(engine_thread, job)
    assert job.news[0] == 1 and sum(job.news) == 40


def test_many_replies_are_handed_out_in_larger_pieces_and_as_soon_as_they_end(engine_thread, llm, monkeypatch):
    monkeypatch.setattr(module, "MAX_RATE", 1e-3)  # as if there were thousands
    monkeypatch.setattr(module, "MAX_PERIOD", 60.0)
    jobs = [Counted(llm, tokens) for tokens in (5, 50, 90)]
    run(engine_thread, *jobs)
    assert [job.news for job in jobs] == [[5], [50], [90]]


def test_a_mistake_in_one_job_is_not_the_others_problem(engine_thread, llm):
    bad, good = Counted(llm, 500), Counted(llm, 20)
    bad.advance = lambda: 1 / 0
    run(engine_thread, bad, good)
    assert "mistake" in bad.failed and sum(good.news) == 20 and not llm.core.requests
    unable = Counted(llm, 5)
    unable.start = lambda: 1 / 0
    run(engine_thread, unable)
    assert "mistake" in unable.failed


def test_what_is_asked_of_a_stopped_engine_is_refused_and_what_was_under_way_is_given_up(llm):
    engine_thread, job = EngineThread(llm), Counted(llm, 500)
    engine_thread.add_job(job)
    engine_thread.close()
    engine_thread.close()
    assert "stopped" in job.failed and not llm.core.requests
    with pytest.raises(RunError, match="stopped"):
        engine_thread.submit(lambda: None).result(5)


def test_news_for_a_loop_that_is_closed_are_dropped(engine_thread, llm):
    job, loop = Counted(llm, 20), asyncio.new_event_loop()
    loop.close()
    counted = job.advance
    job.advance = lambda: (counted(), engine_thread.deliver(loop, print, "to nobody"))
    run(engine_thread, job)
    assert sum(job.news) == 20


def test_news_reach_their_loop_together_and_in_order(engine_thread):
    async def listen():
        values, loop = [], asyncio.get_running_loop()

        def speak():
            for word in "abc":
                engine_thread.deliver(loop, values.append, word)

        await asyncio.wrap_future(engine_thread.submit(speak))
        while not values:
            await asyncio.sleep(0)
        return values

    assert asyncio.run(listen()) == ["a", "b", "c"]


def test_what_is_prepared_costs_nothing_before_the_engine_is_idle(llm, monkeypatch):
    warmer, rendered = PrefixWarmer(llm), []
    chat_ids = llm.tokenizer.chat_ids
    monkeypatch.setattr(llm.tokenizer, "chat_ids", lambda *given, **more: rendered.append(0) or chat_ids(*given, **more))
    for number in range(20):
        warmer.add([{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": "answer"}], {})
    assert not rendered
    count = 0
    while warmer.warm_next():
        count += 1
        while llm.core.requests:
            llm.core.step()
    assert count == 16 and len(rendered) == 32
