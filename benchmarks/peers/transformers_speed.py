"""How fast transformers generates on the CPU in bfloat16: many requests by continuous batching, or one sequence alone. Runs
in the peers' environment.

Reads one JSON object from stdin; the last line written is a JSON object.

{"model": folder, "threads": how many, "requests": [{"prompt": ids, "tokens": how many to generate}], "rounds": how often}:
    greedy, nothing ends early; the first "warmup" of them go before the rounds. "attention": sdpa or eager; "batching":
    arguments of ContinuousBatchingConfig. Every token is multiplied with all keys of all sequences at work and the foreign
    ones are masked, so there are 16 at a time. Answer:
    {"seconds": of each round, "generated", "prompt": tokens of a round, "version"}.
{"model": folder, "threads": how many, "decode": tokens, "rounds": how often}: one token after another behind a prompt of 16
    random ids; "compile": whether by torch.compile, with a static cache. Answer: {"decode": tokens per second by each
    round's median step, "version"}.
"""

import json
import os
import statistics
import sys
import time

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig, StaticCache

DEFAULTS = {"rounds": 1, "warmup": 8, "attention": "sdpa", "batching": {}, "compile": False}
BEFORE_DECODING = 16


def continuous(model: transformers.PreTrainedModel, options: dict) -> dict:
    requests = options["requests"]
    longest = max(len(request["prompt"]) + request["tokens"] for request in requests)
    page = 32
    settings = {"page_size": page, "max_batch_tokens": 512, "max_requests_per_batch": 16, "allow_block_sharing": False,
                "num_blocks": sum(-(-(len(r["prompt"]) + r["tokens"]) // page) + 1 for r in requests) + -(-longest // page),
                } | options["batching"]
    greedy = GenerationConfig(do_sample=False, max_new_tokens=longest, eos_token_id=-1, pad_token_id=0)
    batching = ContinuousBatchingConfig(**settings)
    with model.continuous_batching_context_manager(greedy, continuous_batching_config=batching) as manager:
        seconds = []
        for asked in [requests[:options["warmup"]], *[requests] * options["rounds"]]:
            began = time.perf_counter()
            for request in asked:
                manager.add_request(request["prompt"], max_new_tokens=request["tokens"], eos_token_id=-1)
            generated, waiting = 0, len(asked)
            while waiting:
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    if result.error is not None:
                        sys.exit(f"transformers gave up on a request: {result.error}")
                    generated, waiting = generated + len(result.generated_tokens), waiting - 1
                elif result is None and not manager.is_running():
                    sys.exit("transformers' generation thread ended early")
            seconds.append(time.perf_counter() - began)
    return {"seconds": seconds[1:], "generated": generated, "prompt": sum(len(request["prompt"]) for request in requests)}


@torch.inference_mode()
def decode(model: transformers.PreTrainedModel, options: dict) -> dict:
    rates, vocabulary, length = [], model.config.vocab_size, BEFORE_DECODING + options["decode"]
    ids = torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(0))
    step = torch.compile(model.forward) if options["compile"] else model.forward
    for turn in range(options["rounds"] + 1):
        cache = StaticCache(config=model.config, max_cache_len=length) if options["compile"] else None
        cache = model(ids[:, :BEFORE_DECODING], past_key_values=cache, use_cache=True).past_key_values
        seconds = []
        for position in range(BEFORE_DECODING, length):
            began = time.perf_counter()
            step(ids[:, position:position + 1], past_key_values=cache, use_cache=True)
            seconds.append(time.perf_counter() - began)
        if turn:
            rates.append(1 / statistics.median(seconds))
    return {"decode": rates}


def main() -> None:
    options = DEFAULTS | json.load(sys.stdin)
    torch.set_num_threads(options["threads"])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(options["model"], dtype=torch.bfloat16,
                                                 attn_implementation=options["attention"])
    answer = continuous(model, options) if "requests" in options else decode(model.eval(), options)
    print(json.dumps(answer | {"version": transformers.__version__}))


if __name__ == "__main__":
    main()
