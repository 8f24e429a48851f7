"""The engine's products, alone: rows of activations with one packed matrix of every kind, on one thread, against torch's
product of the same numbers in float32.

    python benchmarks/products.py [--inputs 576] [--outputs 1536] [--runs 15]

In turns; processor time, the best of the runs, since others on the machine only make a run slower. Where a matrix is in the
caches, the limit is what the processor can multiply and add in float32 (torch's large products come near to it), but for
bfloat16 in AMX's tiles (SPOUTNIK_NATIVE_FLAGS=-mno-amx-tile: without them). The kinds with fewer bits are for matrices that are
not, and `decode_bandwidth.py` measures those. The last line is JSON.
"""

import argparse
import time
from collections.abc import Callable

import torch
from common import machine, print_result

from spoutnik.engine.quantization.packed_matrix import multiply, pack

KINDS = ("float32", "bfloat16", "bf12", "int8", "int4")
ROWS = (1, 8, 16, 64, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=576)
    parser.add_argument("--outputs", type=int, default=1536)
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator, results = torch.Generator().manual_seed(0), []
    weight = (torch.randn(arguments.outputs, arguments.inputs, generator=generator) / arguments.inputs**0.5).bfloat16()
    plain = weight.float()
    packed = {kind: pack([plain if kind == "float32" else weight], kind) for kind in KINDS}
    for rows in ROWS:
        x = torch.randn(rows, arguments.inputs, generator=generator)
        work = 2 * rows * arguments.inputs * arguments.outputs
        ways: dict[str, Callable[[], object]] = {kind: lambda kind=kind, x=x: multiply(packed[kind], x) for kind in KINDS}
        ways["torch"] = lambda x=x: x @ plain.T
        rates = {name: work / seconds / 1e9 for name, seconds in best_seconds(ways, arguments.runs, work).items()}
        results += [{"name": f"{kind}, {rows} rows", "ours": rates[kind], "peer": rates["torch"], "unit": "GFLOP/s"}
                    for kind in KINDS]
    print_result([result | {"machine": machine()} for result in results])


def best_seconds(ways: dict[str, Callable[[], object]], runs: int, work: int) -> dict[str, float]:
    """Seconds of a call of each, taken in turns."""
    calls, best = max(1, int(1e8 / work)), dict.fromkeys(ways, float("inf"))
    for _ in range(runs):
        for name, call in ways.items():
            call()
            began = time.thread_time()
            for _ in range(calls):
                call()
            best[name] = min(best[name], (time.thread_time() - began) / calls)
    return best


if __name__ == "__main__":
    main()
