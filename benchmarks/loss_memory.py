"""Peak memory of the loss: chunked cross-entropy against all logits at once, each in a process of its own.

    python benchmarks/loss_memory.py
"""

import resource
import subprocess
import sys

import torch
from common import machine, print_result

from spoutnik.train.losses import token_log_probs, token_log_probs_plain

TOKENS, WIDTH, VOCABULARY = 16384, 128, 16384


def peak(which: str) -> float:
    """MiB that forward and backward of the loss add to the process's peak."""
    torch.set_num_threads(1)
    hidden, weight = torch.randn(TOKENS, WIDTH, requires_grad=True), torch.randn(VOCABULARY, WIDTH, requires_grad=True)
    targets = torch.randint(VOCABULARY, (TOKENS,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    log_probs = token_log_probs(hidden, weight, targets)[0] if which == "ours" else \
        token_log_probs_plain(hidden, weight, targets)
    log_probs.mean().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    if len(sys.argv) > 1:
        print(peak(sys.argv[1]))
        return
    print(machine())
    ours, peer = (float(subprocess.run([sys.executable, __file__, which], capture_output=True, text=True, check=True).stdout)
                  for which in ("ours", "peer"))
    # The limit: one chunk of logits and its gradient, and the two gradients that must be returned.
    limit = (2 * 2048 * VOCABULARY + VOCABULARY * WIDTH + TOKENS * WIDTH) * 4 / 2**20
    print_result({"name": "loss_memory", "ours": ours, "peer": peer, "limit": limit, "unit": "MiB",
                  "ratio": peer / ours, "share_of_limit": limit / ours})


if __name__ == "__main__":
    main()
