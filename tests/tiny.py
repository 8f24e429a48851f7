"""The smallest configurations, models and tokenizer with every feature. Shared by the tests."""

import torch

from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer
from spoutnik.text.thought_format import thought_format
from spoutnik.text.tokenizer import Tokenizer

YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0, "mscale_all_dim": 1.0}

DEEPSEEK = {
    "model_type": "deepseek_v3", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 12, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8, "v_head_dim": 6, "moe_intermediate_size": 16, "n_routed_experts": 8, "n_shared_experts": 1,
    "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 1, "max_position_embeddings": 128, "rope_scaling": YARN, "initializer_range": 0.2,
}

QWEN = {
    "model_type": "qwen2", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2,
}

V2 = DEEPSEEK | {"model_type": "deepseek_v2", "scoring_func": "softmax", "topk_method": "group_limited_greedy",
                 "norm_topk_prob": False, "routed_scaling_factor": 16.0, "n_shared_experts": 2,
                 "num_nextn_predict_layers": 0, "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}}
QWEN3 = QWEN | {"model_type": "qwen3", "head_dim": 12}
LLAMA = QWEN | {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 500.0, "rope_scaling": {
    "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32}}
ALL = {"deepseek_v3": DEEPSEEK, "deepseek_v2": V2, "qwen2": QWEN, "qwen3": QWEN3, "llama": LLAMA}

V3 = {
    "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
    "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536,
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
    "n_group": 8, "topk_group": 4, "first_k_dense_replace": 3, "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 1, "max_position_embeddings": 163840,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
                     "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
}


def config(base: dict, **changes) -> ModelConfig:
    return ModelConfig.parse(base | changes, "test")


def model(base: dict, seed: int = 0, **changes) -> Transformer:
    """A model with random weights everywhere: norms and biases too, so that no part can be left out unnoticed."""
    network = Transformer(config(base, **changes))
    generator = torch.Generator().manual_seed(seed)
    network.init_weights(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        for router in (router for router in network.routers.values() if router.biased):
            bias = router.e_score_correction_bias
            bias.copy_(0.4 * torch.randn(bias.shape, generator=generator))  # of both signs
    return network


def tokens(*shape: int, vocab: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, vocab, shape, generator=torch.Generator().manual_seed(seed))


def tokenizer() -> Tokenizer:
    texts = ["Question: what is 12 + 30? Thinking: 12 plus 30 is 42. Answer: 42",
             "Réponse : la somme de 7 et 5 est 12. Réflexion : donc 12.", "def f(x): return x + 1\n\n\tthe end"] * 8
    return Tokenizer.train(texts, 300)


def completion_ids(tokenizer: Tokenizer, thought: str, answer: str) -> list[int]:
    """What the assistant writes after the generation prompt."""
    return thought_format(tokenizer).completion_ids(thought, answer, tokenizer)


def silent(done: int, total: int, tokens: int, note: str) -> None:
    """A progress bar nobody sees."""


def quantize_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """weight (O, I) to e4m3 numbers and multipliers per block, the largest number of each block at e4m3's largest, 448."""
    outputs, inputs = weight.shape
    padded = torch.nn.functional.pad(weight.float(), (0, -inputs % 128, 0, -outputs % 128))
    blocks = padded.unflatten(1, (-1, 128)).unflatten(0, (-1, 128))  # (rows of blocks, 128, columns of blocks, 128)
    scale_inv = (blocks.abs().amax((1, 3)) / 448.0).clamp(min=1e-12)
    quantized = (blocks / scale_inv[:, None, :, None]).to(torch.float8_e4m3fn)
    return quantized.flatten(2).flatten(0, 1)[:outputs, :inputs].contiguous(), scale_inv
