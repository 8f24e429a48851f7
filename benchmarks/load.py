"""Loading a 3.5 GB checkpoint (bfloat16, random weights in the shape of R1-Distill-Qwen-1.5B): ours, transformers, and
reading the file's bytes once. Seconds, and peak memory as a share of the file (Linux).

    python benchmarks/load.py [--folder KEEP_IT_HERE]

Two times each, in processes of their own that take turns, the file in the page cache: until the call returns (both sides
map the file rather than read it), and until every weight has been read once, which is what a first answer needs. One minute,
once the file is written.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import machine, print_result
from random_model import write_checkpoint

_COMMON = """
import json, re, sys, time
import torch
folder = sys.argv[1]
def peak(): return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
_REPORT = """
called = time.perf_counter() - began
for parameter in model.parameters():
    parameter.detach().view(torch.int16).max()
print(json.dumps({"called": called, "read": time.perf_counter() - began, "memory": peak() - before}))
"""
OURS = _COMMON + """
from spoutnik.model.weights import load_model
before, began = peak(), time.perf_counter()
model = load_model(folder, torch.bfloat16, mapped=True)
""" + _REPORT
THEIRS = _COMMON + """
import transformers
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM
transformers.logging.disable_progress_bar()
before, began = peak(), time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
""" + _REPORT
LIMIT = _COMMON + """
import os
size = os.path.getsize(folder + "/model.safetensors")
buffer = bytearray(64 << 20)
before, began = peak(), time.perf_counter()
with open(folder + "/model.safetensors", "rb", buffering=0) as file:
    while file.readinto(buffer):
        pass
seconds = time.perf_counter() - began
print(json.dumps({"called": seconds, "read": seconds, "memory": peak() - before}))
"""


def run(program: str, folder: Path) -> dict:
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, or will be kept for the next time")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        file = folder / "model.safetensors"
        size = file.stat().st_size if file.exists() else write_checkpoint(folder)
        programs = {"ours": OURS, "transformers": THEIRS, "limit": LIMIT}
        runs: dict[str, list[dict]] = {name: [] for name in programs}
        for turn in range(options.rounds + 1):
            for name, program in programs.items():
                result = run(program, folder)
                if turn:  # the first turn fills the page cache
                    runs[name].append(result)

    def median(name: str, key: str) -> float:
        return statistics.median(result[key] for result in runs[name])

    print_result([{"name": f"load 1.5B, until {what}", "ours": median("ours", key), "peer": median("transformers", key),
                   "limit": median("limit", key), "unit": "s", "file_gb": size / 1e9,
                   "our_peak_over_file": median("ours", "memory") / size,
                   "peer_peak_over_file": median("transformers", "memory") / size}
                  for what, key in (("the call returns", "called"), ("every weight is read", "read"))])


if __name__ == "__main__":
    main()
