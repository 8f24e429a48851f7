"""What llama.cpp makes of GGUF files. Runs in the peers' environment, without Spoutnik.

Reads a JSON list from stdin, one object per file: {"file": path, "prompt": ids, "tokens": how many to write greedily,
"texts": what to tokenise, "threads" (both may be left out)}. Writes a JSON list: {"tokens": ids, "logits" of each step, "ids"
of each text, "back": the texts that those ids mean, "seconds" of the greedy decoding}, or {"error": why the file was not
loaded}.
"""

import contextlib
import ctypes
import json
import os
import sys
import time

import llama_cpp
import numpy as np

F32 = 0  # ggml's number for the type: the cache keeps what was computed, so that only the weights' type matters


def answer(request: dict) -> dict:
    """One file's greedy tokens from its prompt, and what its tokenizer makes of the texts."""
    try:
        model = llama_cpp.Llama(request["file"], n_ctx=0, type_k=F32, type_v=F32, n_threads=request.get("threads", 2),
                                verbose=False)
    except ValueError as error:
        return {"error": str(error)}
    tokens, logits = list(request["prompt"]), []
    began = time.perf_counter()
    model.eval(tokens)
    for _ in range(request["tokens"]):
        row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), shape=(model.n_vocab(),))
        logits.append(np.round(row.astype(np.float64), 5).tolist())
        tokens.append(int(row.argmax()))
        model.eval(tokens[-1:])
    seconds = time.perf_counter() - began
    ids = [model.tokenize(text.encode(), add_bos=False, special=True) for text in request.get("texts", [])]
    return {"tokens": tokens[len(request["prompt"]):], "logits": logits, "ids": ids, "seconds": seconds,
            "back": [written(model, row) for row in ids]}


def written(model: llama_cpp.Llama, ids: list[int]) -> str:
    """The text as llama.cpp's programs show it, with whatever clean-up the file's pre-tokenizer asks for."""
    buffer = ctypes.create_string_buffer(16 * len(ids) + 64)
    size = llama_cpp.llama_detokenize(llama_cpp.llama_model_get_vocab(model.model), (llama_cpp.llama_token * len(ids))(*ids),
                                      len(ids), buffer, len(buffer), False, True)
    return buffer.raw[:size].decode()


def main() -> None:
    requests = json.load(sys.stdin)
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        answers = [answer(request) for request in requests]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
