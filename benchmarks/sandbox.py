"""Programs a second in the sandbox: bubblewrap and Python started for each (cold), and a warm Python that forks into fresh
namespaces.

    python benchmarks/sandbox.py [--programs 200] [--rounds 3] [--threads 2]

The programs are as large as HumanEval's with their tests: imports of typing, math, re and collections, a function, ten asserts.
Cold and warm take turns within each round. `bare` starts Python on the same programs without a sandbox: what cold costs
anyway. The last line is JSON: medians over the rounds of programs a second, the ratio of warm to cold, and verdicts a second
(two processes each: the solution's and the tests').
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from spoutnik.tasks.code import AssertTests, Sandbox
from spoutnik.tasks.code.verdict import judge

IMPORTS = "import math\nimport re\nfrom collections import Counter\nfrom typing import List\n\n"
FUNCTION = """def digits_that_repeat(numbers: List[int], least: int) -> List[int]:
    \"\"\"Digits that occur at least `least` times in the numbers, in order.\"\"\"
    counts = Counter()
    for number in numbers:
        counts.update(re.findall(r"[0-9]", str(number)))
    return sorted(int(digit) for digit, count in counts.items() if count >= least and math.isfinite(count))
"""
ASSERTS = "\n".join(f"assert digits_that_repeat([{n}{n}, {n}, 1{n + 1}], 3) == [{n}]" for n in range(2, 9))


def rate(work: Callable[[int], bool], programs: int, threads: int) -> float:
    """Programs a second over `threads` threads; every one must end well."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(work, range(programs)))
    if not all(results):
        sys.exit(f"{results.count(False)} of {programs} programs failed.")
    return programs / (time.perf_counter() - start)


def main() -> None:
    """Measure in turns and print each round."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=200, help="of each kind and round; cold and bare run a quarter of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    warm, cold = Sandbox(), Sandbox(warm=False)
    tests = AssertTests(ASSERTS)

    def program(number: int) -> str:
        return f"{IMPORTS}{FUNCTION}{ASSERTS}\nprint({number})\n"

    def in_sandbox(sandbox: Sandbox) -> Callable[[int], bool]:
        return lambda number: sandbox.run(program(number), timeout=30).stdout == f"{number}\n"

    def bare(number: int) -> bool:
        line = [os.path.realpath(sys.executable), "-I", "-S", "-c", program(number)]
        return subprocess.run(line, capture_output=True, text=True).stdout == f"{number}\n"

    kinds = {"cold": (in_sandbox(cold), 4), "warm": (in_sandbox(warm), 1), "bare": (bare, 4),
             "verdicts": (lambda _: judge(warm, IMPORTS + FUNCTION, tests, 30).passed, 2)}
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    for work, _ in kinds.values():
        work(0)  # the first one starts the warm process and fills caches
    for round_number in range(options.rounds):
        for name, (work, share) in kinds.items():
            rates[name].append(rate(work, max(options.threads, options.programs // share), options.threads))
        print(f"round {round_number + 1}: " + ", ".join(f"{name} {values[-1]:.1f}/s" for name, values in rates.items())
              + f"; load {os.getloadavg()[0]:.1f}", flush=True)
    medians = {f"{name}_per_second": round(statistics.median(values), 1) for name, values in rates.items()}
    ratio = statistics.median(warm_rate / cold_rate for warm_rate, cold_rate in zip(rates["warm"], rates["cold"]))
    print(json.dumps(medians | {"warm_over_cold": round(ratio, 2), "programs": options.programs, "rounds": options.rounds,
                                "threads": options.threads, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}))
    warm.close()


if __name__ == "__main__":
    main()
