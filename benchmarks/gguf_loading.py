"""Loading a GGUF file: our native decoder, its plain twin (the `gguf` package's dequantization), and two limits: reading the
file's bytes, and writing the numbers that they become.

    python benchmarks/gguf_loading.py FILE.gguf [--runs 9] [--cold]
    python benchmarks/gguf_loading.py FILE.gguf --type Q4_K     # writes it first, where there is none: random weights

All in one process, in turns, each into new memory; medians. --cold: the file is dropped from the system's cache before every
turn, so that its bytes come from the disk. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from random_model import write_blocks

from spoutnik.gguf_folder import gguf_folder
from spoutnik.hardware import peak_memory
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.gguf_decode import read_numbers, read_numbers_plain
from spoutnik.model.gguf_header import TYPES, Placed, read_gguf_header
from spoutnik.model.weight_file import WeightFile
from spoutnik.model.weights import load_model
from spoutnik.native import describe
from spoutnik.parallel import cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--type", choices=TYPES, help="of a new file of random weights")
    parser.add_argument("--dtype", choices=("bfloat16", "float32", "float16"), default="bfloat16")
    parser.add_argument("--cold", action="store_true")
    arguments = parser.parse_args()
    if arguments.type and not arguments.file.exists():
        write_blocks(arguments.file, arguments.type)
    dtype, folder = getattr(torch, arguments.dtype), gguf_folder(arguments.file)
    placed = list(read_gguf_header(arguments.file).tensors.values())
    file = WeightFile(arguments.file.resolve())
    numbers = sum(torch.Size(each.shape).numel() for each in placed)
    before = peak_memory()
    load_model(folder, dtype)
    growth = (peak_memory() - before) / (numbers * dtype.itemsize)
    ways = {
        "bytes read": lambda: file.read_into(0, memoryview(np.empty(file.state.size, np.uint8))),
        "numbers written": lambda: torch.empty(numbers, dtype=dtype).fill_(1),
        "decoded, native": lambda: decode(file, placed, dtype, read_numbers),
        "decoded, gguf package": lambda: decode(file, placed, dtype, read_numbers_plain),
        "model loaded": lambda: load_model(folder, dtype)}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for run in range(arguments.runs):
        for name, way in ways.items():
            if name == "decoded, gguf package" and run > 2:
                continue
            if arguments.cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            began, cpu = time.perf_counter(), time.process_time()
            way()
            seconds[name].append((time.perf_counter() - began, time.process_time() - cpu))
    show(arguments, describe(), placed, numbers, seconds, growth, folder)


def decode(file: WeightFile, placed: list[Placed], dtype: torch.dtype, read) -> None:
    kept = [torch.empty(torch.Size(each.shape).numel(), dtype=dtype) for each in placed]  # a model's weights stay, too
    for each, target in zip(placed, kept):
        read(file, each, target)


def show(arguments, kernels, placed, numbers, seconds, growth, folder) -> None:
    kinds = sorted({each.kind for each in placed})
    print(f"{arguments.file.name}: {numbers / 1e6:.0f} million numbers of {', '.join(kinds)} as {arguments.dtype}, "
          f"{sum(each.size for each in placed) / 1e6:.0f} MB, {'from the disk' if arguments.cold else 'from the cache'}; "
          f"{cores()} threads, {kernels}")
    medians = {name: (statistics.median(wall for wall, _ in runs), statistics.median(cpu for _, cpu in runs))
               for name, runs in seconds.items()}
    read = medians["bytes read"][0]
    for name, (wall, cpu) in medians.items():
        print(f"  {name:22} {wall * 1e3:8.1f} ms  {cpu * 1e3:8.1f} core-ms  {wall / read:6.2f} x reading")
    print(f"  peak memory of the first load: {growth:.2f} x the weights; tensors in the model: "
          f"{len(Checkpoint.open(folder).tensors)}")
    print(json.dumps({"file": arguments.file.name, "dtype": arguments.dtype, "cold": arguments.cold, "memory": round(growth, 3),
                      **{name: round(wall, 5) for name, (wall, _) in medians.items()}}))


if __name__ == "__main__":
    main()
