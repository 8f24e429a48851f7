"""math-verify in its processes: verdicts, guards, limits, deaths."""

import os
import signal
import threading

import pytest

from spoutnik.tasks.maths import equal, statistics
from spoutnik.tasks.maths.pool import WorkerPool, pool

BOMB = "99^{99^{9}}"  # which the exact rules never pass on


@pytest.fixture(scope="module")
def shared_workers():
    own = WorkerPool(2)
    yield own
    own.close()


@pytest.fixture
def workers(shared_workers):
    """Two processes at most, none of them started yet or all of them idle."""
    return shared_workers


def test_what_the_exact_rules_cannot_read_is_asked():
    before = statistics()
    assert equal(r"\sum_{k=1}^{10} k^2", r"\sum_{k=1}^{10} k^{2}")
    assert equal("385", r"\sum_{k=1}^{10} k^2") and not equal("386", r"\sum_{k=1}^{10} k^2")
    assert not equal(r"\int_0^1 x dx", r"\int_0^1 x^2 dx")
    assert statistics().asked > before.asked and statistics().timeouts == before.timeouts


def test_a_question_without_end_is_ended_and_counted(workers):
    before = workers.statistics()
    assert workers.equivalent("1", BOMB) is None
    assert workers.equivalent("1", r"\frac{2}{2}") is True
    after = workers.statistics()
    assert (after.asked - before.asked, after.timeouts - before.timeouts, after.restarts - before.restarts) == (2, 1, 0)


def test_a_killed_process_is_started_again(workers):
    assert workers.equivalent("1", r"\frac{2}{2}") is True
    before, killed = workers.statistics(), set(workers.process_ids())
    for process_id in killed:
        os.kill(process_id, signal.SIGKILL)
    assert workers.equivalent("1", "2") is False
    after = workers.statistics()
    assert not killed & set(workers.process_ids()) and after.restarts > before.restarts and after.timeouts == before.timeouts


def test_many_callers_share_the_processes(workers):
    verdicts = []
    threads = [threading.Thread(target=lambda n=n: verdicts.append(workers.equivalent(str(n), rf"\frac{{{2 * n}}}{{2}}")))
               for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [True] * 6 and len(workers.process_ids()) <= 2


def test_closed_processes_are_gone_and_come_back(workers):
    workers.equivalent("1", "1")
    process_ids = workers.process_ids()
    workers.close()
    for process_id in process_ids:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)
    assert workers.process_ids() == [] and workers.equivalent("1", "1.0") is True


@pytest.mark.parametrize("gold, answer", [("10^{-20}", "10^{-21}"), ("0.0000001", "0.0000002"), ("(1,2)", "1,2"),
                                          ("1/2^{99}", "1/2^{98}"),
                                          (r"\frac{1}{2004!}", r"\frac{1}{2034!}"), ("1-1/e", "1+1/e")])
def test_the_known_mistakes_of_math_verify_do_not_come_back(workers, gold, answer):
    assert workers.equivalent(gold, answer) is not True
    assert not equal(rf"{gold} + \int_0^1 x dx", rf"{answer} + \int_0^1 x dx")


def test_the_pool_of_the_module_is_the_one_that_is_counted():
    assert statistics() == pool.statistics()
