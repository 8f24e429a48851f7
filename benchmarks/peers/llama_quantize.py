"""llama.cpp's own quantization of GGUF files. Runs in the peers' environment, without Spoutnik.

Reads a JSON list from stdin, one object per file: {"file": path, "out": path, "type": "Q4_K_M"}. Writes a JSON list with
null, or why it failed.
"""

import ctypes
import json
import sys

import llama_cpp


def quantize(request: dict) -> str | None:
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{request['type']}")
    settings.nthread = 2
    status = llama_cpp.llama_model_quantize(request["file"].encode(), request["out"].encode(), ctypes.byref(settings))
    return None if status == 0 else f"llama_model_quantize returned {status}"


if __name__ == "__main__":
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)  # kept: llama.cpp has its address alone
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    json.dump([quantize(request) for request in json.load(sys.stdin)], sys.stdout)
