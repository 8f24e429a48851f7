"""The same GGUF files read by us and by llama.cpp: greedy tokens, logits, and the ids of texts in many languages.

    python benchmarks/gguf_parity.py MODEL [--file FILE.gguf ...] [--texts LINES.txt ...]

MODEL (a folder or a GGUF file of a real model) is exported as F16 and Q8_0 and quantized by llama.cpp itself to the types
below, which mix K blocks where rows are whole ones; so are models with random weights of the other architectures, wide enough
for K blocks everywhere. --file: GGUF files as they are, too. --texts: more texts, one a line.

A token counts where both choose the same one after the same beginning, which is llama.cpp's. Ours are computed in float32 from
the numbers of the file. llama.cpp rounds activations to halves before F16 weights and to 8 bits before blocks: the distance
that this makes (the largest over the vocabulary, in standard deviations of the logits) is bounded by NEAR at the median
position, and a token may differ only where the two best lie nearer to each other than twice the distance there. Exits with
status 1 where either is broken or ids differ. The peers' environment: PEERS, or .venv-peers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from common import machine, print_result
from gguf_texts import texts_of
from random_model import write_checkpoint

import spoutnik
from spoutnik.export.writer import export
from spoutnik.loading import load_tokenizer
from spoutnik.locate import locate
from spoutnik.model.config import ModelConfig
from spoutnik.model.gguf_header import read_gguf_header
from spoutnik.model.transformer import Transformer
from spoutnik.text.tokenizer import Tokenizer

EXPORTED, QUANTIZED = ("f16", "q8_0"), ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K_M", "Q5_K_M", "Q6_K")
NEAR = {"f16": 0.01, "q8_0": 0.3}  # the latter of all others, too: activations in 8 bits are what they share
PROMPTS = ("What is 17 * 23?", "Write two sentences about the sea.", "Pourquoi le ciel est-il bleu ?", "List three fruits.")
RANDOM_PROMPT = 24
THREADS = 1  # llama.cpp's wait for each other by spinning, which is slow on a busy machine
DENSE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 512, "rope_theta": 10000.0, "rms_norm_eps": 1e-6}
RANDOM = {
    "qwen2": DENSE | {"num_key_value_heads": 2},
    "qwen3": DENSE | {"num_key_value_heads": 2, "head_dim": 64},
    "deepseek_v3": DENSE | {
        "num_key_value_heads": 4, "q_lora_rank": 256, "kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32,
        "v_head_dim": 64, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
        "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.0,
        "scoring_func": "sigmoid", "topk_method": "noaux_tc"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--file", type=Path, action="append", default=[])
    parser.add_argument("--texts", type=Path, action="append", default=[])
    parser.add_argument("--types", nargs="+", choices=QUANTIZED, default=QUANTIZED, help="of llama.cpp's quantization")
    parser.add_argument("--tokens", type=int, default=32, help="for each of the prompts")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        source = locate(arguments.model)
        files = exports(source, Path(temporary) / "real", arguments.types) | {file.stem: file for file in arguments.file}
        results = [tokenizers(files["f16"], texts_of(arguments.texts))]
        results += compared(source.name, files, arguments.tokens)
        for kind in RANDOM:
            folder = Path(temporary) / kind
            results += compared(f"random {kind}", exports(random_folder(kind, source, folder), folder, arguments.types),
                                arguments.tokens)
    print_result(results)
    sys.exit(any(result["broken"] for result in results))


def random_folder(kind: str, source: Path, folder: Path) -> Path:
    """Random weights under the real model's tokenizer, strong enough that logits differ."""
    tokenizer = Tokenizer.load(source)
    config = ModelConfig.read({"model_type": kind, "vocab_size": -(-tokenizer.vocab_size // 256) * 256, **RANDOM[kind]}, kind)
    write_checkpoint(folder / "model", config, scale=0.08)
    tokenizer.save(folder / "model")
    return folder / "model"


def exports(source: Path, folder: Path, types: Sequence[str]) -> dict[str, Path]:
    """type -> file: ours, and those that llama.cpp makes of our F16."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {dtype: export(source, "gguf", folder / f"{dtype}.gguf", dtype).path for dtype in EXPORTED}
    wanted = {kind: folder / f"{kind}.gguf" for kind in types}
    failures = peer("llama_quantize.py", [{"file": str(files["f16"]), "out": str(out), "type": kind}
                                          for kind, out in wanted.items()])
    assert not any(failures), failures
    return files | wanted


def compared(name: str, files: dict[str, Path], tokens: int) -> Iterator[dict]:
    """One result for each file of a model. Random models are asked with random ids."""
    for kind, file in files.items():
        model = spoutnik.load(file, dtype="float32")
        prompts = prompts_of(model.tokenizer, name.startswith("random"))
        answers = peer("llama_greedy.py", [{"file": str(file), "prompt": prompt, "tokens": tokens, "threads": THREADS}
                                           for prompt in prompts])
        result = {"name": f"{name} as {kind}", **distance(model, prompts, answers, NEAR.get(kind, NEAR["q8_0"])),
               "types": ", ".join(f"{n} {k}" for k, n in sorted(Counter(
                   placed.kind for placed in read_gguf_header(file, False).tensors.values()).items()))}
        print(f"{result['name']}: {result['ours']:.1%} of tokens equal ({result['near_ties']} others are near ties), distance "
              f"{result['median_distance']:.4f} (largest {result['largest_distance']:.4f}); {result['types']}", flush=True)
        yield result


def prompts_of(tokenizer: Tokenizer, is_random: bool) -> list[list[int]]:
    if not is_random:
        return [tokenizer.chat_ids([{"role": "user", "content": text}]) for text in PROMPTS]
    return [torch.randint(100, 20000, (RANDOM_PROMPT,), generator=torch.Generator().manual_seed(seed)).tolist()
            for seed in range(len(PROMPTS))]


@torch.no_grad()
def distance(model: Transformer, prompts: list[list[int]], answers: list[dict], near: float) -> dict:
    same, apart, undecided = [], [], 0
    for prompt, answer in zip(prompts, answers, strict=True):
        assert "error" not in answer, answer
        logits = model(torch.tensor([prompt + answer["tokens"]]))[0, len(prompt) - 1:-1]
        theirs = torch.tensor(answer["logits"])
        off = (logits[:, :theirs.shape[1]] - theirs).abs().amax(-1)
        best = logits.topk(2).values
        equal = logits.argmax(-1) == torch.tensor(answer["tokens"])
        undecided += int((~equal & (best[:, 0] - best[:, 1] < 2 * off)).sum())
        same.append(equal)
        apart.append(off / logits.std(-1))
    equal, apart = torch.cat(same), torch.cat(apart)
    differ = int((~equal).sum())
    return {"ours": float(equal.float().mean()), "unit": "share of greedy tokens equal",
            "replies_equal": f"{sum(bool(row.all()) for row in same)} of {len(same)}", "near_ties": f"{undecided} of {differ}",
            "median_distance": float(apart.median()), "largest_distance": float(apart.max()), "allowed": near,
            "broken": bool(apart.median() > near or undecided < differ)}


def tokenizers(file: Path, texts: list[str]) -> dict:
    """The ids of texts by the tokenizer that we make of the file, and by llama.cpp."""
    ours = load_tokenizer(locate(file))
    answer = peer("llama_greedy.py", [{"file": str(file), "prompt": [1], "tokens": 1, "texts": texts}])[0]
    differ = [text for text, ids in zip(texts, answer["ids"], strict=True) if ours.encode(text) != ids]
    for text in differ[:5]:
        print(f"ids differ: {text!r}")
    print(f"ids: {len(texts) - len(differ)} of {len(texts)} texts have the same", flush=True)
    return {"name": f"ids of {file.stem}", "ours": len(texts) - len(differ), "unit": f"of {len(texts)} texts", "broken":
            bool(differ)}


def peer(script: str, requests: list[dict]) -> list:
    """What a script answers in the peers' environment."""
    python = str(Path(os.environ.get("PEERS", ".venv-peers")) / "bin" / "python")
    shown = subprocess.run([python, Path(__file__).parent / "peers" / script], input=json.dumps(requests), capture_output=True,
                           text=True)
    if shown.returncode:
        raise SystemExit(f"{python} {script}: {shown.stderr[-2000:]}")
    return json.loads(shown.stdout)


if __name__ == "__main__":
    main()
