"""The process in which reasoning-gym draws and scores: a script that reads requests, one JSON list a line, and answers each.

Requests are ["draw", set, seed] and ["score", set, seed, answer]. The gym's scorers are not ours, and some can be kept busy
without end: the system ends this process when a request takes too long or too much memory, whatever it is doing. A problem is
drawn again where it is no longer kept, so a request needs nothing that was before it.
"""

import json
import os
import random
import resource
import signal
import sys
from functools import cache, lru_cache

DRAW_SECONDS, SCORE_SECONDS = 120, 2  # of processor time
WALL_FACTOR = 30  # on a busy machine; it also ends a process that sleeps
MEMORY = 4 << 30
KEPT = 4096  # problems

# Sets that make their problems with the set itself, as many as it says: they are made anew for each problem.
REBUILT = {"acre", "gsm_symbolic", "list_functions", "word_ladder"}
# Sets without an answer of their own, since many are right: where their metadata has one of them.
EXAMPLES = {"graph_color": "possible_answer", "propositional_logic": "example_answer", "rubiks_cube": "example_correct_answer"}


@cache
def dataset(name: str):
    from reasoning_gym import create_dataset
    return create_dataset(name, seed=0, size=1)


@lru_cache(KEPT)
def entry(name: str, seed: int) -> dict:
    """The set's problem of a seed, always the same."""
    import numpy
    from reasoning_gym import create_dataset
    random.seed(seed)
    numpy.random.seed(seed % 2 ** 32)
    return create_dataset(name, seed=seed, size=1)[0] if name in REBUILT else dataset(name)[seed]


def draw(name: str, seed: int) -> dict:
    """Its prompt and its answer; a text in place of an answer that is none, where there is one."""
    drawn = entry(name, seed)
    answer = drawn["answer"]
    if answer is None and name in EXAMPLES:
        answer = drawn["metadata"][EXAMPLES[name]]
    if answer is not None and not isinstance(answer, str):
        answer = json.dumps(answer)
    return {"question": drawn["question"], "answer": answer}


def score(name: str, seed: int, answer: str) -> dict:
    drawn = entry(name, seed)
    limit(SCORE_SECONDS)
    try:
        return {"score": float(dataset(name).score_answer(answer, drawn))}
    except Exception as error:  # noqa: BLE001 - what a scorer raises is a property of it that is reported
        return {"raised": f"{type(error).__name__}: {error}"[:200]}


def limit(seconds: int) -> None:
    """The system ends the process after so many seconds of its own, or WALL_FACTOR times as many of the clock's; 0: never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * WALL_FACTOR)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # some sets print
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        limit(DRAW_SECONDS)
        reply = {"draw": draw, "score": score}[what](*arguments)
        limit(0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
