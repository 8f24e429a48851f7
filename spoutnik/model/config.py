"""The configuration of a model: the keys of the published `config.json` files, checked strictly."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json

# Keys of published files that say nothing about the numbers this code computes.
IGNORED_KEYS = frozenset({
    "architectures", "auto_map", "transformers_version", "use_cache", "torch_dtype", "dtype", "attention_dropout",
    "ep_size", "pretraining_tp", "_name_or_path", "pad_token_id", "qk_head_dim", "sliding_window", "max_window_layers",
    "layer_types", "use_mrope", "aux_loss_alpha", "seq_aux", "chunk_size_feed_forward", "output_attentions",
    "output_hidden_states", "return_dict", "is_encoder_decoder", "id2label", "label2id", "problem_type",
})
# Keys with one value that this code computes; any other is refused.
ONLY = {"hidden_act": "silu", "rope_interleave": True, "use_sliding_window": False}


class YarnScaling(BaseModel):
    """YaRN (Peng et al. 2023), with the keys DeepSeek publishes under `rope_scaling`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["yarn"] = "yarn"
    factor: float = Field(gt=0)
    original_max_position_embeddings: int = Field(gt=0)
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0


class ModelConfig(BaseModel):
    """`deepseek_v3` (MLA + DeepSeekMoE + MTP) or `qwen2` (dense, grouped-query attention: the distilled students)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_type: Literal["deepseek_v3", "qwen2"]
    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    max_position_embeddings: int = Field(default=4096, gt=0)
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    rope_theta: float = Field(default=10000.0, gt=0)
    rope_scaling: YarnScaling | None = None
    initializer_range: float = Field(default=0.02, gt=0)
    tie_word_embeddings: bool = False
    bos_token_id: int | None = 0
    eos_token_id: int | None = 1

    # MLA. q_lora_rank null means one q_proj (V2-Lite).
    q_lora_rank: int | None = Field(default=None, gt=0)
    kv_lora_rank: int = Field(default=0, ge=0)
    qk_nope_head_dim: int = Field(default=0, ge=0)
    qk_rope_head_dim: int = Field(default=0, ge=0)
    v_head_dim: int = Field(default=0, ge=0)

    # DeepSeekMoE
    moe_intermediate_size: int = Field(default=0, ge=0)
    n_routed_experts: int = Field(default=0, ge=0)
    n_shared_experts: int = Field(default=0, ge=0)
    num_experts_per_tok: int = Field(default=0, ge=0)
    n_group: int = Field(default=1, gt=0)
    topk_group: int = Field(default=1, gt=0)
    first_k_dense_replace: int = Field(default=0, ge=0)
    moe_layer_freq: Literal[1] = 1
    scoring_func: Literal["sigmoid"] = "sigmoid"
    topk_method: Literal["noaux_tc"] = "noaux_tc"
    norm_topk_prob: bool = True
    routed_scaling_factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    # Multi-token prediction
    num_nextn_predict_layers: int = Field(default=0, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.model_type == "qwen2":
            if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
                raise ValueError("hidden_size must be a multiple of num_attention_heads, and that of "
                                 "num_key_value_heads")
            if self.qk_head_dim % 2:
                raise ValueError("hidden_size / num_attention_heads must be even (rotary pairs)")
            return self
        for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key} must be positive for model_type deepseek_v3")
        if self.qk_rope_head_dim % 2:
            raise ValueError("qk_rope_head_dim must be even (rotary pairs)")
        if self.has_experts:
            if self.moe_intermediate_size <= 0 or self.num_experts_per_tok <= 0:
                raise ValueError("moe_intermediate_size and num_experts_per_tok must be positive with routed experts")
            if self.n_routed_experts % self.n_group or not 1 <= self.topk_group <= self.n_group:
                raise ValueError("n_routed_experts must divide into n_group groups, and topk_group lie in 1..n_group")
            if self.num_experts_per_tok > self.n_routed_experts // self.n_group * self.topk_group:
                raise ValueError("num_experts_per_tok exceeds the experts of topk_group groups")
            if self.n_group > 1 and self.n_routed_experts // self.n_group < 2:
                raise ValueError("a group needs two experts: its score is the sum of its two best")
        return self

    @property
    def has_experts(self) -> bool:
        return self.n_routed_experts > 0

    def is_moe_layer(self, layer: int) -> bool:
        return self.has_experts and layer >= self.first_k_dense_replace

    @property
    def qk_head_dim(self) -> int:
        """Width of a query head: nope + rope for MLA, hidden/heads for grouped-query attention."""
        if self.model_type == "qwen2":
            return self.hidden_size // self.num_attention_heads
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def cache_width(self) -> int:
        """Numbers cached per token and layer: latent + shared rotary key (MLA), or keys + values (GQA)."""
        if self.model_type == "qwen2":
            return 2 * self.num_key_value_heads * self.qk_head_dim
        return self.kv_lora_rank + self.qk_rope_head_dim

    @classmethod
    def parse(cls, values: dict, source: str) -> "ModelConfig":
        """Checks `values`; errors name `source` (a file or a recipe's key), the key, the value and the remedy."""
        values = dict(values)
        rope = values.pop("rope_parameters", None)  # how transformers 5 writes rope_theta and rope_scaling
        if rope is not None:
            values.setdefault("rope_theta", rope.get("rope_theta", 10000.0))
            if rope.get("rope_type", "default") != "default":
                kept = {key: rope[key] for key in YarnScaling.model_fields if key in rope}
                values.setdefault("rope_scaling", kept | {"type": rope["rope_type"]})
        width = values.pop("head_dim", None)
        biased = values.get("model_type") == "qwen2"
        for key, value in (ONLY | {"attention_bias": False}).items():
            given = values.pop(key, value)
            if given != value and not (key == "attention_bias" and biased):
                raise UserError(f"{source}: {key} = {given!r}: only {value!r} is supported. This model cannot be read.")
        try:
            config = cls(**{key: value for key, value in values.items() if key not in IGNORED_KEYS})
            if biased and width not in (None, config.qk_head_dim):
                raise UserError(f"{source}: head_dim = {width}: only hidden_size / num_attention_heads = "
                                f"{config.qk_head_dim} is supported. This model cannot be read.")
            return config
        except ValidationError as error:
            raise UserError(f"{source}: {first_error(error)}") from error

    @classmethod
    def load(cls, folder: Path) -> "ModelConfig":
        path = Path(folder) / "config.json"
        values = read_json(path)
        if not isinstance(values, dict):
            raise RunError(f"{path}: must hold a JSON object.")
        return cls.parse(values, str(path))

    def published(self) -> dict:
        """The dictionary to write as `config.json`: our keys plus what other readers of the file expect."""
        values = json.loads(self.model_dump_json())
        if self.model_type == "qwen2":
            defaults = {key: field.default for key, field in ModelConfig.model_fields.items()}
            keep = {"model_type", "rope_theta", "rms_norm_eps", "initializer_range", "tie_word_embeddings",
                    "bos_token_id", "eos_token_id", "max_position_embeddings", "rope_scaling"}
            values = {key: value for key, value in values.items() if key in keep or value != defaults[key]}
        architecture = {"qwen2": "Qwen2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM"}[self.model_type]
        return values | {"architectures": [architecture], "hidden_act": "silu", "torch_dtype": "bfloat16",
                         "attention_bias": False}


def first_error(error: ValidationError) -> str:
    """One sentence from pydantic's report: the key, what was given, and what is wrong with it."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the settings"
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'. Remove it or correct its spelling."
    if first["type"] == "missing":
        return f"the key '{key}' is missing. Add it."
    message = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
    return f"{key}{given}: {message[0].lower() + message[1:]}. Correct this value."
