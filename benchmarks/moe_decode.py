"""Decoding one sequence with a mixture of experts of 16 billion parameters, 2.4 of them read for a token (random int4
weights in DeepSeek-V2-Lite's shape), against a dense model of the same attention that reads as many bytes for a token.

    python benchmarks/moe_decode.py --folder PLACE [--tokens 64] [--rounds 5]

PLACE/moe and PLACE/dense hold the two models. The text is random and sampled at temperature 1, so that every token goes to
experts of its own. Wanted: 0.8 of the dense model's speed. The limit is reading the weights at the read bandwidth measured
here.
"""

import argparse
import statistics
import sys
from pathlib import Path

from common import machine, print_result

from spoutnik.bench import decode_rate, engine_of, weight_bytes
from spoutnik.model.config import ModelConfig
from spoutnik.model.presets import preset
from spoutnik.native.bandwidth import read_bandwidth


def shapes() -> dict[str, ModelConfig]:
    """The mixture, and the dense twin: blocks as wide as what one token passes, shared and routed experts."""
    moe = preset("deepseek-v2-lite").config.model_copy(update={"max_position_embeddings": 4096})
    width = (moe.num_experts_per_tok + moe.n_shared_experts) * moe.moe_intermediate_size
    dense = moe.model_copy(update={"n_routed_experts": 0, "n_shared_experts": 0, "num_experts_per_tok": 0, "n_group": 1,
                                   "topk_group": 1, "intermediate_size": width})
    return {"moe": moe, "dense": dense}


def measure(folder: Path, tokens: int, rounds: int) -> dict:
    model = engine_of(folder, "bfloat16", "int4", max_num_seqs=1)
    decode_rate(model, 1, tokens)  # wakes threads and brings the weights into memory
    whole, read = weight_bytes(model)
    return {"rates": [decode_rate(model, 1, tokens) for _ in range(rounds)], "whole": whole, "read": read}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="holds the models: moe and dense")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    for name in shapes():
        if not (options.folder / name / "config.json").exists():
            sys.exit(f"{options.folder / name}: holds no model.")
    bandwidth = read_bandwidth()
    found = {name: measure(options.folder / name, options.tokens, options.rounds) for name in shapes()}
    moe, dense = found["moe"], found["dense"]
    print_result({"name": "moe_decode against dense", "ours": statistics.median(moe["rates"]),
                  "peer": statistics.median(dense["rates"]), "limit": bandwidth / moe["read"], "unit": "tokens/s",
                  "read_bandwidth": bandwidth / 1e9, "moe_gb": moe["whole"] / 1e9, "moe_mb_per_token": moe["read"] / 1e6,
                  "dense_mb_per_token": dense["read"] / 1e6, "dense_share_of_limit":
                  statistics.median(dense["rates"]) * dense["read"] / bandwidth})


if __name__ == "__main__":
    main()
