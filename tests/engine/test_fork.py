"""A process that forks while the native threads are at work."""

import os
import signal
import threading
import time
import warnings

import pytest
import torch

from spoutnik.engine.sampler import SamplingMetadata, sample_tokens
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.native import library
from spoutnik.parallel import cores


def draw():
    """On several threads: rows enough for that."""
    sample_tokens(torch.zeros(400, 1024), SamplingMetadata.of([SamplingParams()] * 400, torch.full((400,), 0.5)))


def ends(child, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return True
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@pytest.mark.skipif(library() is None or cores() < 2 or not hasattr(os, "fork"), reason="needs native threads, and fork")
def test_a_forked_child_does_not_wait_for_its_parent_s_threads():
    over = threading.Event()

    def work():
        while not over.is_set():
            draw()

    parent = threading.Thread(target=work)
    parent.start()
    try:
        for _ in range(20):  # without locks of its own, a third of the children never ended
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, against forks beside threads
                child = os.fork()
            if child == 0:
                draw()
                os._exit(0)
            assert ends(child, 20)
    finally:
        over.set()
        parent.join()
