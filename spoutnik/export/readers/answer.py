"""What another program makes of an export: runs in that program's interpreter, without Spoutnik.

Without arguments it prints which readers this interpreter has, as a JSON object of names and versions. With "read", stdin holds
a JSON object: {"reader": peft, transformers or llama.cpp; "base": folder or GGUF file; "adapter": folder, GGUF file or null;
"prompts": lists of token ids; "threads": how many; "out": an .npz file}. It writes `base` and, where there is an adapter,
`adapted`: the logits of all positions, float32 (positions, vocabulary).
"""

import importlib.metadata
import importlib.util
import json
import sys

import numpy as np

_NEEDS = {"transformers": ("transformers", "torch"), "peft": ("peft", "transformers", "torch"), "llama.cpp": ("llama_cpp",)}
_F32 = 0  # ggml's number of the type: the cache keeps what was computed


def versions() -> dict[str, str]:
    return {reader: importlib.metadata.version(modules[0].replace("_cpp", "-cpp-python"))
            for reader, modules in _NEEDS.items() if all(importlib.util.find_spec(module) for module in modules)}


def of_torch(request: dict) -> dict[str, np.ndarray]:
    """By transformers; the adapter, if there is one, by PEFT."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(request["threads"])
    model = transformers.AutoModelForCausalLM.from_pretrained(request["base"], dtype=torch.float32, attn_implementation="eager")

    def logits() -> np.ndarray:
        with torch.no_grad():
            return torch.cat([model(torch.tensor([ids])).logits[0] for ids in request["prompts"]]).numpy()

    result = {"base": logits()}
    if request["adapter"] is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, request["adapter"])
        result["adapted"] = logits()
    return result


def of_llama_cpp(request: dict) -> dict[str, np.ndarray]:
    import llama_cpp

    longest = max(map(len, request["prompts"]))

    def logits(**options) -> np.ndarray:
        model = llama_cpp.Llama(request["base"], n_ctx=max(longest, 64), n_batch=longest, n_threads=request["threads"],
                                n_threads_batch=request["threads"], type_k=_F32, type_v=_F32, logits_all=True, verbose=False,
                                **options)
        rows = []
        for ids in request["prompts"]:
            model.reset()
            model.eval(ids)
            rows.append(np.array(model.scores[:len(ids)], dtype=np.float32))
        return np.concatenate(rows)

    result = {"base": logits()}
    if request["adapter"] is not None:
        result["adapted"] = logits(lora_path=request["adapter"])
    return result


def main() -> None:
    if sys.argv[1:] != ["read"]:
        print(json.dumps(versions()))
        return
    request = json.load(sys.stdin)
    np.savez(request["out"], **(of_llama_cpp(request) if request["reader"] == "llama.cpp" else of_torch(request)))


if __name__ == "__main__":
    main()
