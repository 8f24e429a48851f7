"""llama.cpp's speed and logits on GGUF files, and its own quantisation of them. Runs in the peers' environment.

Reads a JSON list from stdin, one object per task, done in order; writes a JSON list of answers. The tasks:

{"quantise": GGUF file, "to": GGUF file, "type": one of TYPES, "pure": whether the head gets that type too (llama.cpp's
    own choice for q4_0 is a 6-bit head), "threads": how many}. Answer: {"bytes": of the file}.
{"file": GGUF file, "threads": how many, "prompt": tokens, "decode": tokens, "rounds": how often, "settings": arguments of
    llama_cpp.Llama}: times a prompt of that many random ids given at once, then that many decoding steps after a prompt of
    16. Nothing is sampled: the ids are drawn before. Answer: {"prompt": tokens per second of each round, "decode": the same
    of each step's median, "bytes": of the file}.
{"file": GGUF file, "threads": how many, "ids": token ids, "last": n, "logits": .npy file}: writes the logits of the last n
    of the ids, (n, vocabulary) float32. Answer: {}.
{"file": GGUF file, "threads": how many, "windows": lists of token ids}: Answer: {"nats": the log-probability of each token but
    the first of its window}.
"""

import contextlib
import json
import os
import random
import statistics
import sys
import time

import llama_cpp
import numpy as np

TYPES = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
         "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M}
BEFORE_DECODING = 16


def quantise(task: dict) -> dict:
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.pure, parameters.nthread = TYPES[task["type"]], task["pure"], task["threads"]
    if llama_cpp.llama_model_quantize(task["quantise"].encode(), task["to"].encode(), parameters):
        sys.exit(f"llama.cpp could not quantise {task['quantise']}")
    return {"bytes": os.path.getsize(task["to"])}


def loaded(task: dict, context: int, **settings) -> llama_cpp.Llama:
    return llama_cpp.Llama(task["file"], n_ctx=context, n_batch=context, n_ubatch=512, n_threads=task["threads"],
                           n_threads_batch=task["threads"], verbose=False, **settings)


def measure(task: dict) -> dict:
    longest = max(task["prompt"], BEFORE_DECODING + task["decode"])
    model = loaded(task, longest, **task.get("settings", {}))
    draw = random.Random(0)
    ids = [draw.randrange(model.n_vocab()) for _ in range(longest)]
    answer = {"prompt": [], "decode": [], "bytes": os.path.getsize(task["file"])}
    for turn in range(task["rounds"] + 1):
        model.reset()
        seconds = timed(model, ids[:task["prompt"]])
        model.reset()
        model.eval(ids[:BEFORE_DECODING])
        steps = [timed(model, [i]) for i in ids[BEFORE_DECODING:BEFORE_DECODING + task["decode"]]]
        if turn:  # the first one reads the file and wakes the threads
            answer["prompt"].append(task["prompt"] / seconds)
            answer["decode"].append(1 / statistics.median(steps))
    return answer


def timed(model: llama_cpp.Llama, ids: list[int]) -> float:
    began = time.perf_counter()
    model.eval(ids)
    llama_cpp.llama_synchronize(model.ctx)
    return time.perf_counter() - began


def logits(task: dict) -> dict:
    model = loaded(task, len(task["ids"]), logits_all=True)
    model.eval(task["ids"])
    end = len(task["ids"])
    np.save(task["logits"], np.asarray(model.scores[end - task["last"]:end], dtype=np.float32))
    return {}


def log_probabilities(task: dict) -> dict:
    model = loaded(task, max(map(len, task["windows"])), logits_all=True)
    nats = []
    for ids in task["windows"]:
        model.reset()
        model.eval(ids)
        scores = np.asarray(model.scores[:len(ids) - 1], dtype=np.float64)
        scores -= scores.max(-1, keepdims=True)
        chosen = scores[np.arange(len(ids) - 1), ids[1:]]
        nats += (chosen - np.log(np.exp(scores).sum(-1))).tolist()
    return {"nats": nats}


def work(task: dict) -> dict:
    kinds = {"quantise": quantise, "windows": log_probabilities, "logits": logits}
    return next((function for key, function in kinds.items() if key in task), measure)(task)


def main() -> None:
    tasks = json.load(sys.stdin)
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        answers = [work(task) for task in tasks]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
