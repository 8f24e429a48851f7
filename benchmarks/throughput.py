"""64 requests of mixed lengths (prompts of 16 to 512 tokens, 32 to 256 tokens to generate) given at once to a 1.5B model
(random weights, Qwen2-1.5B's shape, bfloat16): ours against vLLM's CPU build and transformers' continuous batching.

    python benchmarks/throughput.py [--model KEEP_IT_HERE] [--requests 64] [--scale 1.0] [--rounds 2]

Greedy on all sides, nothing ends early, nothing is detokenised or shared by prefix; each side in a process of its own, in
turns, after the first eight requests as a warm-up. The settings of the peers are in peers/*.py. ours, peer and limit are
generated tokens per second of the whole job, prompts included; the limit is set by the matrix products alone, as fast as
large ones are here, and in decoding by reading the weights. Needs `make peers`. --scale 0.1 --requests 8 is a quick look.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict

import torch
from common import ask_peer, machine, matmul_limit, print_result
from random_model import Request, checkpoint, mixed_requests, model_argument

from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.native.bandwidth import read_bandwidth
from spoutnik.parallel import cores

PEERS = {"vllm": ("vllm_throughput.py", "vllm"), "transformers": ("transformers_speed.py", "peers")}
ROWS = 512  # of a block of prompt tokens


def work(options: dict) -> dict:
    """Our side, in a process of its own: as the peers' scripts."""
    from spoutnik.engine.llm import LLM
    from spoutnik.engine.sampling_params import SamplingParams

    model = LLM(options["model"], dtype="bfloat16", max_num_seqs=64, enable_prefix_caching=False)
    prompts = [request["prompt"] for request in options["requests"]]
    settings = [SamplingParams(temperature=0.0, max_tokens=request["tokens"], ignore_eos=True)
                for request in options["requests"]]
    model.generate(prompts[:options["warmup"]], settings[:options["warmup"]])
    seconds, generated = [], 0
    for _ in range(options["rounds"]):
        began = time.perf_counter()
        results = model.generate(prompts, settings)
        seconds.append(time.perf_counter() - began)
        generated = sum(len(result.outputs[0].token_ids) for result in results)
    return {"seconds": seconds, "generated": generated, "prompt": sum(map(len, prompts))}


def ask_ours(request: dict) -> dict:
    done = subprocess.run([sys.executable, __file__, "--work"], input=json.dumps(request), text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"our side failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def limit_seconds(config: ModelConfig, requests: list[Request]) -> float:
    """What no program can be faster than: every row of a product at the rate of the products of ROWS rows, and in no step of
    decoding, all sequences that are still at work advancing together, less time than reading the weights takes. The head
    only where a token is chosen; attention is left out."""
    torch.set_num_threads(cores())
    d, i, kv = config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.qk_head_dim
    layer, head = [(d, d), (d, kv), (d, kv), (d, d), (d, i), (d, i), (i, d)], [(d, config.vocab_size)]
    in_layers, in_head = (matmul_limit([(ROWS, a, b) for a, b in matrices], torch.bfloat16, repeats=3) / ROWS
                          for matrices in (layer, head))
    in_layers *= config.num_hidden_layers
    reading = account(config).flops_per_token / read_bandwidth()  # two bytes, and two operations, per weight
    prompts = sum(len(request.prompt) for request in requests)
    steps = range(1, max(request.tokens for request in requests))  # the first token comes with the prompt
    decoding = (max(reading, (in_layers + in_head) * sum(request.tokens > step for request in requests)) for step in steps)
    return in_layers * prompts + in_head * len(requests) + sum(decoding)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model_argument(parser)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--against", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(json.load(sys.stdin))))
        return
    print(machine())
    with checkpoint(options.model) as folder:
        config = ModelConfig.load(folder)
        requests = mixed_requests(options.requests, config.vocab_size, options.scale)
        task = {"model": str(folder), "requests": [asdict(request) for request in requests], "rounds": 1,
                "warmup": 8, "threads": cores(), "engine": {"enforce_eager": True}}  # compiled, vLLM was no faster
        seconds: dict[str, list[float]] = {name: [] for name in ["ours", *options.against]}
        for _ in range(options.rounds):
            for name, times in seconds.items():
                answer = ask_ours(task) if name == "ours" else ask_peer(PEERS[name][0], task, PEERS[name][1])
                times += answer["seconds"]
                print(f"{name}: {answer['generated'] / times[-1]:.1f} generated tokens/s", flush=True)
        limit = limit_seconds(config, requests)
    generated, prompt = (sum(counts) for counts in zip(*((request.tokens, len(request.prompt)) for request in requests)))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print_result([{"name": f"throughput against {name}", "ours": generated / median["ours"],
                   "peer": generated / median[name], "limit": generated / limit, "unit": "tokens/s",
                   "requests": len(requests), "generated": generated, "prompt_tokens": prompt,
                   "our_total": (generated + prompt) / median["ours"],
                   "peers_total": (generated + prompt) / median[name],
                   "peers_share_of_limit": limit / median[name]}
                  for name in options.against])


if __name__ == "__main__":
    main()
