"""llama.cpp writes the tokens that our model writes. Needs the peers' environment (`make peers`, or SPOUTNIK_PEERS=its
python) and is skipped without it. One process reads all files."""

import json
import os
import subprocess
from pathlib import Path

import gguf_back
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from spoutnik.export.writer import export

ROOT = Path(__file__).parents[2]
PEERS = Path(os.environ.get("SPOUTNIK_PEERS", ROOT / ".venv-peers" / "bin" / "python"))
STEPS, PROMPT = 24, 40  # past the 32 positions that the scalings start from
WIDE = {"hidden_size": 64, "intermediate_size": 96, "initializer_range": 0.15}
MLA = tiny.DEEPSEEK | WIDE | {"moe_intermediate_size": 32, "q_lora_rank": 32, "kv_lora_rank": 32, "v_head_dim": 16,
                              "num_nextn_predict_layers": 0}
V2 = MLA | {name: tiny.V2[name] for name in ("model_type", "scoring_func", "norm_topk_prob", "n_shared_experts")} | {
    "routed_scaling_factor": 2.0, "topk_method": "greedy", "rope_scaling": tiny.V2["rope_scaling"]}
QWEN, QWEN3, LLAMA = tiny.QWEN | WIDE, tiny.QWEN3 | WIDE | {"head_dim": 32}, tiny.LLAMA | WIDE
DENSE_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"type": "linear", "factor": 4.0}
CASES = {
    "V3": (MLA, {}), "V3 with an MTP layer": (MLA, {"num_nextn_predict_layers": 1}),
    "V3 without q_lora": (MLA, {"q_lora_rank": None}), "V3 without scaling": (MLA, {"rope_scaling": None}),
    "V3 without groups": (MLA, {"n_group": 1, "topk_group": 1}), "V3 with all groups": (MLA, {"topk_group": 4}),
    "V3 with two mscales": (MLA, {"rope_scaling": tiny.YARN | {"mscale_all_dim": 0.3}}),
    "V3 without mscale_all_dim": (MLA, {"rope_scaling": tiny.YARN | {"mscale_all_dim": 0.0}}),
    "V3 with an attention factor": (MLA, {"rope_scaling": tiny.YARN | {"attention_factor": 1.3}}),
    "V3 stretched linearly": (MLA, {"rope_scaling": LINEAR}),
    "V3 not renormalised": (MLA, {"norm_topk_prob": False}),
    "V3 dense, tied": (MLA, {"first_k_dense_replace": 3, "tie_word_embeddings": True}),
    "V2": (V2, {}), "V2-Lite": (V2, {"q_lora_rank": None}), "V2 tied": (V2, {"tie_word_embeddings": True}),
    "V2 with one expert per group": (V2, {"topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 5}),
    "Qwen2": (QWEN, {}), "Qwen2 tied": (QWEN, {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "Qwen2 with yarn": (QWEN, {"rope_scaling": DENSE_YARN}),
    "Qwen2 with an attention factor": (QWEN, {"rope_scaling": DENSE_YARN | {"attention_factor": 0.8}}),
    "Qwen3": (QWEN3, {}), "Qwen3 tied": (QWEN3, {"tie_word_embeddings": True}),
    "Llama 3": (LLAMA, {}), "Llama without scaling, tied": (LLAMA, {"rope_scaling": None, "tie_word_embeddings": True}),
    "Llama with biases": (LLAMA, {"attention_bias": True, "mlp_bias": True, "head_dim": 32}),
    "Llama stretched linearly": (LLAMA, {"rope_scaling": LINEAR}),
}
# How far llama.cpp's logits may lie from ours, in standard deviations, at the median position: it rounds activations to the
# weights' type, or to 8 bits before weights in blocks. (At single positions this can send a token to another expert.)
NEAR = {"f32": 1e-4, "f16": 0.005, "bf16": 0.03, "q8_0": 0.1, "q4_0": 0.1}


def clear_cut(folder: Path) -> None:
    """Makes the model mean its next token, so that rounding does not change it: the head looks for the token that was read
    last, under another name (under its own where the head is tied)."""
    tensors = load_file(folder / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"].mul_(16)
    if "lm_head.weight" in tensors:
        tensors["lm_head.weight"] += embedding.roll(7, 0)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture(scope="module")
def read(checkpoint, tmp_path_factory, tokenizer):
    """(case, dtype) -> (what llama.cpp was asked, its answer)."""
    if not PEERS.exists() or subprocess.run([PEERS, "-c", "import llama_cpp"], capture_output=True).returncode:
        pytest.skip(f"{PEERS}: no llama.cpp there (make peers)")
    folder, asked = tmp_path_factory.mktemp("gguf"), {}
    texts = ["What is 12 + 30 ?", "Réponse :  7.\n\tthe end", "x²=½ 日本 9"]
    for number, (case, (base, changes)) in enumerate(CASES.items()):
        source = checkpoint(base, torch.float32, **changes)
        prompt = tiny.tokens(PROMPT, vocab=300, seed=number).tolist()
        for dtype in NEAR:  # float32 first: what a random model means is compared there to the last digits
            path = export(source, "gguf", folder / f"{number}-{dtype}.gguf", dtype).path
            asked[case, dtype] = {"file": str(path), "prompt": prompt, "tokens": STEPS, "texts": texts}
            if dtype == "f32":
                clear_cut(source)
    shown = subprocess.run([PEERS, ROOT / "benchmarks" / "peers" / "llama_greedy.py"], capture_output=True, text=True,
                           input=json.dumps(list(asked.values())), timeout=600)
    assert shown.returncode == 0, shown.stderr[-2000:]
    return dict(zip(asked, zip(asked.values(), json.loads(shown.stdout), strict=True)))


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens(read, case, dtype):
    """Against our model with the numbers of the file."""
    request, answer = read[case, dtype]
    assert "error" not in answer, answer
    base, changes = CASES[case]
    model = gguf_back.model(request["file"], tiny.config(base, vocab_size=320, **changes))
    with torch.no_grad():
        ours = model(torch.tensor([request["prompt"] + answer["tokens"]]))[0, PROMPT - 1:-1]
    apart = (ours - torch.tensor(answer["logits"])).abs().amax(-1) / ours.std()
    assert ours.std() > 0.3 and (apart.max() if dtype == "f32" else apart.median()) < NEAR[dtype]
    assert answer["tokens"] == ours.argmax(-1).tolist()
    best = ours.topk(2).values
    if dtype != "f32":
        assert ((best[:, 0] - best[:, 1]) / ours.std()).min() > 4 * NEAR[dtype]  # else rounding could decide
    if dtype == "f32" or "tied" not in case:
        assert len(set(answer["tokens"])) > STEPS // 3


@pytest.mark.parametrize("case", ["V3", "Qwen2", "Llama 3"])
def test_text_is_split_alike_and_comes_back(read, tokenizer, case):
    request, answer = read[case, "f32"]
    assert answer["ids"] == [tokenizer.encode(text) for text in request["texts"]]
    assert answer["back"] == request["texts"]
