"""Decoding one sequence with the weights of a 1.5B model (random, in Qwen2-1.5B's shape): tokens per second, and the bytes
of weights read for them as a share of how fast this machine reads memory. In bfloat16, int8 and int4, and transformers in
bfloat16.

    python benchmarks/decode_bandwidth.py [--model KEEP_IT_HERE] [--formats bf16 int8 int4] [--tokens 64] [--rounds 5]

A rate is what a user of `spoutnik.LLM` gets, sampling included: tokens after the first by the time between first and last.
Keys and values are not counted among the bytes; weights in bfloat16 are, as they lie in memory (12 bits, native/bf12.h), and
`plain_gigabytes_per_second` says how fast plain ones would have to be read for the same speed. The limit is the read bandwidth
measured in the same process before and after each round (a machine that is shared may be twice as fast in one minute as in
the next); ours, limit and share are medians of the rounds. Wanted: 85, 75 and 70 % of it. Needs the peers' environment for
transformers (`make peers`), unless --no-peer is given.
"""

import argparse
import statistics
from itertools import pairwise
from pathlib import Path

from common import ask_peer, machine, print_result
from random_model import checkpoint, model_argument

from spoutnik.engine.bench import decode_rate, weight_bytes
from spoutnik.engine.llm import LLM
from spoutnik.model.accounting import account
from spoutnik.native.bandwidth import read_bandwidth
from spoutnik.parallel import cores


def measure(folder: Path, name: str, tokens: int, rounds: int) -> dict:
    """One format: ours in tokens/s against the limit of the memory."""
    model = LLM(folder, dtype="bfloat16", quantize=None if name == "bf16" else name, max_num_seqs=1)
    read, plain = weight_bytes(model)[1], account(model.config).flops_per_token  # 2 operations and 2 bytes a weight
    decode_rate(model, 1, 8)  # wakes threads and brings the weights into memory
    rates, bandwidths = [], [read_bandwidth()]
    for _ in range(rounds):
        rates.append(decode_rate(model, 1, tokens))
        bandwidths.append(read_bandwidth())
    limits = [(before + after) / 2 / read for before, after in pairwise(bandwidths)]
    ours = statistics.median(rates)
    return {"name": f"decode_bandwidth {name}", "ours": ours, "limit": statistics.median(limits), "unit": "tokens/s",
            "share": statistics.median(rate / limit for rate, limit in zip(rates, limits)), "megabytes_per_token": read / 1e6,
            "gigabytes_per_second": ours * read / 1e9, "read_bandwidth": statistics.median(bandwidths) / 1e9,
            "slowest": min(rates), "fastest": max(rates)} | (
                {"plain_gigabytes_per_second": ours * plain / 1e9} if name == "bf16" else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model_argument(parser)
    parser.add_argument("--formats", nargs="+", default=["bf16", "int8", "int4"], choices=["bf16", "int8", "int4"])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    print(machine())
    with checkpoint(options.model) as folder:
        results = [measure(folder, name, options.tokens, options.rounds) for name in options.formats]
        if "bf16" in options.formats and not options.no_peer:
            answer = ask_peer("transformers_speed.py", {"model": str(folder), "threads": cores(), "decode": options.tokens,
                                                        "rounds": options.rounds})
            bf16 = results[options.formats.index("bf16")]
            bf16 |= {"peer": statistics.median(answer["decode"]), "peers_version": f"transformers {answer['version']}"}
            bf16["peers_share_of_limit"] = bf16["peer"] / bf16["limit"]
    print_result(results)


if __name__ == "__main__":
    main()
