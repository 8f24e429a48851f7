"""reasoning-gym's sets as tasks of their own."""

import os
import random
import signal

import pytest

pytest.importorskip("reasoning_gym")

from spoutnik.errors import UserError
from spoutnik.tasks import is_held_out
from spoutnik.tasks.catalog import find_task, find_tasks, task_names
from spoutnik.tasks.gym import EXCLUDED, SETS, GymTask
from spoutnik.tasks.gym import process as gym_process_module
from spoutnik.tasks.gym.process import GymProcess, gym_process
from spoutnik.tasks.gym.sets import ACCEPTED, EXEMPTIONS
from spoutnik.tasks.gym.worker import EXAMPLES, REBUILT

QUICK = ("chain_sum", "countdown", "n_queens", "spiral_matrix", "graph_color", "list_functions", "gsm_symbolic",
         "string_insertion", "binary_matrix", "kakurasu", "complex_arithmetic", "time_intervals")


def problem(name: str, seed: int = 1, split: str = "train"):
    task = GymTask(name)
    return task, task.sample(random.Random(seed), split)


def test_every_set_of_the_gym_is_known_and_every_table_speaks_of_sets():
    from reasoning_gym.factory import DATASETS

    assert set(SETS) == set(DATASETS) - {"composite"}, "composite is a mixture of others"
    for table in (EXCLUDED, ACCEPTED, EXEMPTIONS, REBUILT, EXAMPLES):
        assert set(table) <= set(SETS)
    assert not set(EXCLUDED) & (set(ACCEPTED) | set(EXEMPTIONS)) and all(reason.endswith(".") for reason in EXCLUDED.values())
    assert len(task_names()) == len(set(task_names()))


@pytest.mark.parametrize("name", QUICK)
def test_the_gym_s_own_answer_is_right_and_the_next_problem_s_is_not(name):
    task, rng = GymTask(name), random.Random(5)
    problems = [task.sample(rng, "train") for _ in range(6)]
    for one, other in zip(problems, problems[1:]):
        assert task.verify(one, one.answer) == 1.0 and task.verify(one, f"  {one.answer}\n") == 1.0
        if other.answer != one.answer and name != "graph_color":
            assert task.verify(one, other.answer) == 0.0
        for text in ("", "no answer", f"not {one.answer}", f"{one.answer}, {other.answer}, 17", "x" * 30_000, None, 7, b"1"):
            assert task.verify(one, text) == 0.0, text


def test_a_problem_follows_from_the_random_numbers_alone_and_the_splits_share_none():
    task = GymTask("ransom_note")  # its generator walks through sets of letters
    drawn = {split: [task.sample(random.Random(seed), split) for seed in range(40)] for split in ("train", "held_out")}
    gym_process.close()
    assert [task.sample(random.Random(seed), "train") for seed in range(5)] == drawn["train"][:5]
    assert not {each.prompt for each in drawn["train"]} & {each.prompt for each in drawn["held_out"]}
    assert all(is_held_out(each) == (split == "held_out") for split, problems in drawn.items() for each in problems)
    assert {each.data["shown_seed"] % 2 for each in drawn["train"]} == {0}
    assert {each.data["shown_seed"] % 2 for each in drawn["held_out"]} == {1}
    with pytest.raises(ValueError, match="no split 'test'"):
        task.sample(random.Random(0), "test")


def test_a_problem_can_be_verified_after_its_process_is_gone():
    task, one = problem("countdown")
    gym_process.close()
    assert task.verify(one, one.answer) == 1.0


@pytest.mark.parametrize("name", ["countdown", "n_queens", "spiral_matrix", "binary_matrix", "string_insertion",
                                  "polynomial_multiplication"])
def test_scorers_that_evaluate_never_see_a_program(name, tmp_path):
    task, one = problem(name)
    raw = GymTask(name, raw=True)
    trace = tmp_path / "executed"
    program = f"open({str(trace)!r}, 'w').close()"
    assert task.verify(one, program) == 0.0 and not trace.exists()
    raw.verify(one, program)
    assert trace.exists(), "without what stands around it the scorer runs the answer: else it needs no form"
    assert task.verify(one, "9**9**9**9") == 0.0 and task.verify(one, one.answer) == 1.0


def test_partial_credit_and_exceptions_are_wrong_but_seen_by_the_audit_of_the_scorer_alone():
    task, one = problem("prime_factorization")
    raw = GymTask("prime_factorization", raw=True)
    assert task.verify(one, "17 × 4711") == 0.0 < raw.verify(one, "17 × 4711") < 1.0
    assert task.verify(one, "no number") == 0.0
    with pytest.raises(RuntimeError, match="ValueError: invalid literal"):
        raw.verify(one, "no number")


def test_a_scorer_without_end_is_ended_and_wrong():
    task, one = problem("rubiks_cube")
    ended = gym_process.ended
    assert task.verify(one, "R999999999 " * 50) == 0.0, "a billion turns"
    raw = GymTask("n_queens", raw=True)
    queens = raw.sample(random.Random(1))
    with pytest.raises(RuntimeError, match="more than 2 seconds"):
        raw.verify(queens, "9**9**9**9")
    assert gym_process.ended > ended and task.verify(one, one.answer) == 1.0


def test_a_process_that_is_killed_between_two_requests_is_started_again():
    process = GymProcess()
    first = process.draw("chain_sum", 4)
    os.kill(process._process.pid, signal.SIGKILL)
    assert process.score("chain_sum", 4, first["answer"]) == 1.0
    process.close()


def test_a_forked_process_asks_one_of_its_own():
    task, one = problem("chain_sum")
    parents = gym_process._process.pid
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        grade = task.verify(one, one.answer)
        os.write(write, f"{grade} {gym_process._process.pid != parents}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"1.0 True" and task.verify(one, one.answer) == 1.0
    assert gym_process._process.pid == parents


def test_a_missing_gym_is_a_sentence(monkeypatch):
    monkeypatch.setattr(gym_process_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install reasoning-gym"):
        GymProcess().draw("chain_sum", 0)


def test_names_and_patterns():
    assert find_task("gym-chain_sum").gym_name == "chain_sum" and find_task("gym-chain_sum") is find_task("gym-chain_sum")
    assert [task.name for task in find_tasks(["gym-*_sum", "countdown", "gym-chain_sum"])] == [
        "gym-chain_sum", "gym-decimal_chain_sum", "countdown"]
    assert len(find_tasks(["gym-*"])) == len(SETS) - len(EXCLUDED)
    name, reason = next(iter(EXCLUDED.items()))
    with pytest.raises(UserError) as error:
        find_task(f"gym-{name}")
    assert reason in str(error.value) and "left out" in str(error.value)
    with pytest.raises(UserError, match="Did you mean 'gym-countdown'"):
        find_task("gym-cuntdown")
    with pytest.raises(UserError, match="No task is called like 'zz"):
        find_tasks(["zz*"])
