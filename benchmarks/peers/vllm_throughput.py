"""How many tokens per second vLLM's CPU build generates for a list of requests. Needs an environment of its own (`make
peers`).

Reads one JSON object from stdin: {"model": folder, "requests": [{"prompt": ids, "tokens": how many to generate}], "rounds":
how often, "threads": how many, "cache_gb": memory for keys and values, "engine": arguments of vllm.LLM}. Greedy, the end of
sentence ignored, no tokenizer, nothing detokenised. The first "warmup" requests go before the rounds. The last line written
is a JSON object: {"seconds": of each round, "generated", "prompt": tokens of a round, "version"}.

    echo '{"model": "FOLDER", "requests": [{"prompt": [1, 2, 3], "tokens": 8}], "rounds": 1, "threads": 2}' |
        .venv-vllm/bin/python benchmarks/peers/vllm_throughput.py
"""

import json
import os
import sys
import time

DEFAULTS = {"rounds": 1, "warmup": 8, "cache_gb": 4, "engine": {}}


def main() -> None:
    options = DEFAULTS | json.load(sys.stdin)
    # Read when vLLM is imported. The threads are bound to their cores, one each; none is kept back for the server.
    os.environ.update(VLLM_CPU_KVCACHE_SPACE=str(options["cache_gb"]), VLLM_CPU_NUM_OF_RESERVED_CPU="0",
                      VLLM_CPU_OMP_THREADS_BIND=f"0-{options['threads'] - 1}", VLLM_LOGGING_LEVEL="ERROR",
                      VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1")
    import vllm

    longest = max(len(request["prompt"]) + request["tokens"] for request in options["requests"])
    engine = {"dtype": "bfloat16", "max_num_seqs": 64, "max_model_len": longest, "skip_tokenizer_init": True,
              "enable_prefix_caching": False, "disable_log_stats": True, "seed": 0} | options["engine"]
    model = vllm.LLM(options["model"], **engine)
    prompts = [{"prompt_token_ids": request["prompt"]} for request in options["requests"]]
    settings = [vllm.SamplingParams(temperature=0.0, max_tokens=request["tokens"], ignore_eos=True, detokenize=False)
                for request in options["requests"]]
    if options["warmup"]:
        model.generate(prompts[:options["warmup"]], settings[:options["warmup"]], use_tqdm=False)
    seconds, generated = [], 0
    for _ in range(options["rounds"]):
        began = time.perf_counter()
        results = model.generate(prompts, settings, use_tqdm=False)
        seconds.append(time.perf_counter() - began)
        generated = sum(len(result.outputs[0].token_ids) for result in results)
    model.llm_engine.engine_core.shutdown()  # its last words go to stdout too
    print(json.dumps({"seconds": seconds, "generated": generated, "version": vllm.__version__,
                      "prompt": sum(len(request["prompt"]) for request in options["requests"])}))


if __name__ == "__main__":
    main()
