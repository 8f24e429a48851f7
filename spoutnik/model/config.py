"""The configuration of a model: the keys of published `config.json` files, checked strictly. Does not import torch."""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json
from spoutnik.model.published_config import drop_unknown, translate
from spoutnik.validation import did_you_mean, sentences

# Keys of published files that say nothing about the numbers this code computes.
IGNORED_KEYS = frozenset({
    "architectures", "auto_map", "transformers_version", "use_cache", "torch_dtype", "dtype", "attention_dropout",
    "ep_size", "pretraining_tp", "_name_or_path", "pad_token_id", "qk_head_dim", "sliding_window", "max_window_layers",
    "layer_types", "aux_loss_alpha", "seq_aux", "chunk_size_feed_forward", "output_attentions",
    "output_hidden_states", "return_dict", "is_encoder_decoder", "id2label", "label2id", "problem_type",
    "output_router_logits", "embd_pdrop", "resid_pdrop", "rope_ratio", "unsloth_version", "unsloth_fixed",
})
# Keys with one value that this code computes; any other is refused.
ONLY = {"hidden_act": "silu", "rope_interleave": True, "use_sliding_window": False}
ARCHITECTURES = {"deepseek_v2": "DeepseekV2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM",
                 "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
# What a file of this type means when it says nothing.
DEFAULTS = {"deepseek_v2": {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False},
            "qwen3": {"head_dim": 128}}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class YarnScaling(_Strict):
    """YaRN (Peng et al. 2023), with the keys DeepSeek publishes under `rope_scaling`."""

    type: Literal["yarn"] = "yarn"
    """The kind of scaling."""
    factor: float = Field(gt=0)
    """How many times longer the context becomes."""
    original_max_position_embeddings: int = Field(gt=0)
    """The context before."""
    beta_fast: float = 32.0
    """Turns within the old context above which a frequency stays."""
    beta_slow: float = 1.0
    """Turns below which a frequency is divided by the factor."""
    mscale: float = 1.0
    """Scales cosines and sines, relative to mscale_all_dim."""
    mscale_all_dim: float = 0.0
    """Scales the attention's logits."""
    attention_factor: float | None = None
    """The multiplier of cosines and sines; null derives it from the two mscales."""


class Llama3Scaling(_Strict):
    """Llama 3.1's stretching of the slow frequencies (Grattafiori et al. 2024)."""

    type: Literal["llama3"] = "llama3"
    """The kind of scaling."""
    factor: float = Field(gt=0)
    """What slow frequencies are divided by."""
    low_freq_factor: float = Field(gt=0)
    """Turns within the old context below which a frequency is slow."""
    high_freq_factor: float = Field(gt=0)
    """Turns above which a frequency stays."""
    original_max_position_embeddings: int = Field(gt=0)
    """The context before."""

    @model_validator(mode="after")
    def _ordered(self) -> "Llama3Scaling":
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("high_freq_factor must be larger than low_freq_factor")
        return self


class LinearScaling(_Strict):
    """Positions divided by `factor` (Chen et al. 2023)."""

    type: Literal["linear"] = "linear"
    """The kind of scaling."""
    factor: float = Field(gt=0)
    """What positions are divided by."""


RopeScaling = Annotated[YarnScaling | Llama3Scaling | LinearScaling, Field(discriminator="type")]


class FP8Quantization(_Strict):
    """DeepSeek-V3's FP8 checkpoints: e4m3 weights, one float32 multiplier (`weight_scale_inv`) per block of 128 x 128."""

    quant_method: Literal["fp8"]
    fmt: Literal["e4m3"] = "e4m3"
    weight_block_size: tuple[Literal[128], Literal[128]] = (128, 128)
    activation_scheme: Literal["dynamic"] = "dynamic"  # about tensor cores: we multiply in the compute type
    scale_fmt: Literal["ue8m0"] | None = None  # V3.1: the multipliers are powers of two, still stored as float32


class ModelConfig(_Strict):
    """`deepseek_v2`, `deepseek_v3` (MLA, DeepSeekMoE, MTP), or `qwen2`, `qwen3`, `llama` (dense, grouped queries)."""

    model_type: Literal["deepseek_v2", "deepseek_v3", "qwen2", "qwen3", "llama"]
    """The architecture: deepseek_v2 and deepseek_v3 have MLA and experts, the others are dense with grouped queries."""
    vocab_size: int = Field(gt=0)
    """Tokens that have an embedding. A recipe sets it at its top."""
    hidden_size: int = Field(gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(gt=0)
    """Width of a dense layer's feed-forward network."""
    num_hidden_layers: int = Field(gt=0)
    """Layers."""
    num_attention_heads: int = Field(gt=0)
    """Query heads of a layer."""
    num_key_value_heads: int = Field(gt=0)
    """Heads of keys and values that the query heads share. Left out: as many."""
    max_position_embeddings: int = Field(default=4096, gt=0)
    """The longest context, in tokens."""
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    """Epsilon of the norms."""
    rope_theta: float = Field(default=10000.0, gt=0)
    """Base of the rotary frequencies."""
    rope_scaling: RopeScaling | None = None
    """How the rotary frequencies are stretched for a longer context."""
    initializer_range: float = Field(default=0.02, gt=0)
    """Standard deviation of the random weights."""
    tie_word_embeddings: bool = False
    """The head uses the embedding's weights."""
    bos_token_id: int | None = 0
    """Id of the token that begins a text; recipes leave it out."""
    eos_token_id: int | list[int] | None = 1
    """Ids of the tokens that end a reply; recipes leave it out."""

    # Grouped-query attention
    head_dim: int | None = Field(default=None, gt=0)
    """Width of a head; null means hidden_size / num_attention_heads."""
    attention_bias: bool = False
    """Biases on q, k, v and o. (qwen2 always has them on q, k and v, and never on o.)"""
    mlp_bias: bool = False
    """Biases in the feed-forward networks."""

    # MLA
    q_lora_rank: int | None = Field(default=None, gt=0)
    """Width of the compressed queries; null means one q_proj (V2-Lite)."""
    kv_lora_rank: int = Field(default=0, ge=0)
    """Width of the latent from which keys and values are made."""
    qk_nope_head_dim: int = Field(default=0, ge=0)
    """Width of a query head's part without positions."""
    qk_rope_head_dim: int = Field(default=0, ge=0)
    """Width of a query head's rotated part."""
    v_head_dim: int = Field(default=0, ge=0)
    """Width of a value head."""

    # DeepSeekMoE
    moe_intermediate_size: int = Field(default=0, ge=0)
    """Width of an expert."""
    n_routed_experts: int = Field(default=0, ge=0)
    """Routed experts of a layer; 0 makes a dense model."""
    n_shared_experts: int = Field(default=0, ge=0)
    """Experts that every token passes."""
    num_experts_per_tok: int = Field(default=0, ge=0)
    """Routed experts that a token passes."""
    n_group: int = Field(default=1, gt=0)
    """Groups that the routed experts are divided into."""
    topk_group: int = Field(default=1, gt=0)
    """Groups that a token's experts may come from."""
    first_k_dense_replace: int = Field(default=0, ge=0)
    """Layers at the bottom that are dense."""
    moe_layer_freq: Literal[1] = 1
    """Every layer above those has experts."""
    scoring_func: Literal["sigmoid", "softmax"] = "sigmoid"
    """From the router's logits to scores: sigmoid (V3) or softmax (V2)."""
    topk_method: Literal["noaux_tc", "greedy", "group_limited_greedy"] = "noaux_tc"
    """How experts are chosen: noaux_tc (V3), greedy or group_limited_greedy (V2)."""
    norm_topk_prob: bool = True
    """The chosen experts' scores are divided by their sum."""
    routed_scaling_factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """What the routed experts' sum is multiplied by."""

    # Multi-token prediction
    num_nextn_predict_layers: int = Field(default=0, ge=0, le=1)
    """Modules of multi-token prediction."""

    quantization_config: FP8Quantization | None = None
    """Of published FP8 weights; recipes leave it out."""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        (_check_mla if self.is_mla else _check_gqa)(self)
        if self.has_experts:
            _check_experts(self)
        return self

    @property
    def is_mla(self) -> bool:
        return self.model_type in ("deepseek_v2", "deepseek_v3")

    @property
    def has_experts(self) -> bool:
        return self.n_routed_experts > 0

    def is_moe_layer(self, layer: int) -> bool:
        return self.has_experts and layer >= self.first_k_dense_replace

    @property
    def qkv_bias(self) -> bool:
        return self.model_type == "qwen2" or self.attention_bias

    @property
    def qk_head_dim(self) -> int:
        """Width of a query head: nope + rope for MLA."""
        if self.is_mla:
            return self.qk_nope_head_dim + self.qk_rope_head_dim
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rope_width(self) -> int:
        """How much of a query head is rotated."""
        return self.qk_rope_head_dim if self.is_mla else self.qk_head_dim

    @property
    def value_width(self) -> int:
        return self.v_head_dim if self.is_mla else self.qk_head_dim

    @property
    def cache_width(self) -> int:
        """Numbers cached per token and layer: latent + shared rotary key (MLA), or keys + values (GQA)."""
        if self.is_mla:
            return self.kv_lora_rank + self.qk_rope_head_dim
        return 2 * self.num_key_value_heads * self.qk_head_dim

    def __hash__(self) -> int:
        """Of some fields: a checkpoint may have a list of ends (eos_token_id), which has no hash of its own."""
        return hash((self.model_type, self.vocab_size, self.hidden_size, self.num_hidden_layers))

    @property
    def eos_token_ids(self) -> list[int]:
        eos = self.eos_token_id
        return [] if eos is None else eos if isinstance(eos, list) else [eos]

    @classmethod
    def parse(cls, values: dict, source: str) -> "ModelConfig":
        """Checks `values`; errors name `source` (a file or a recipe's key), the key, the value and the remedy."""
        kind = values.get("model_type")
        if kind not in ARCHITECTURES:
            raise UserError(f"{source}: model_type = {kind!r}: only {', '.join(ARCHITECTURES)} can be read."
                            f"{did_you_mean(kind, ARCHITECTURES)} Code that comes with a checkpoint is never run, so other "
                            "architectures have no meaning here.")
        values = DEFAULTS.get(kind, {}) | {key: value for key, value in values.items() if key not in IGNORED_KEYS}
        for key, value in ONLY.items():
            actual = values.pop(key, value)
            if actual != value:
                raise UserError(f"{source}: {key} = {actual!r}: only {value!r} is supported. This model cannot be read.")
        _read_rope(values)
        if kind.startswith("deepseek"):
            values.pop("head_dim", None)  # transformers writes the rotary width there
        if values.get("num_key_value_heads") is None and "num_attention_heads" in values:
            values["num_key_value_heads"] = values["num_attention_heads"]
        if values.get("head_dim") and values.get("hidden_size") == values["head_dim"] * values.get("num_attention_heads", 0):
            values["head_dim"] = None  # what null means
        for key in ("n_group", "topk_group", "n_shared_experts", "n_routed_experts"):  # null in published files: none
            if key in values and values[key] is None:
                del values[key]
        _refuse_other_quantization(values.get("quantization_config"), source)
        try:
            return cls(**values)
        except ValidationError as error:
            raise UserError(f"{source}: {sentences(error, cls)}") from error

    @classmethod
    def load(cls, folder: Path) -> "ModelConfig":
        """The configuration in a folder, as its makers meant it.

        Raises:
            UserError: the model is of a kind that is not computed here. RunError: the file is missing or damaged.
        """
        path = Path(folder) / "config.json"
        values = read_json(path)
        if not isinstance(values, dict):
            raise RunError(f"{path}: must hold a JSON object.")
        return cls.read(values, str(path))

    @classmethod
    def read(cls, values: dict, source: str) -> "ModelConfig":
        """`parse` of a published file's keys, which may say the same in other words, and more than is needed."""
        values = translate(values, source)
        if values["model_type"] in ARCHITECTURES:
            values = drop_unknown(values, {*cls.model_fields, *IGNORED_KEYS, *ONLY, "rope_parameters"}, source)
        return cls.parse(values, source)

    def published(self, dtype: str = "bfloat16") -> dict:
        """The dictionary to write as `config.json`: our keys plus what other readers of the file expect."""
        values = json.loads(self.model_dump_json())
        defaults = {key: field.default for key, field in ModelConfig.model_fields.items()}
        always = {"model_type", "rope_theta", "rms_norm_eps", "initializer_range", "tie_word_embeddings", "bos_token_id",
                  "eos_token_id", "max_position_embeddings", "rope_scaling", "attention_bias"}
        if self.is_mla:
            always |= set(defaults) - {"head_dim", "mlp_bias", "quantization_config"}
        elif self.model_type != "qwen2":
            values["head_dim"] = self.qk_head_dim
        values = {key: value for key, value in values.items() if key in always or value != defaults[key]}
        if values["rope_scaling"] is not None:  # transformers reads `rope_type`, older readers `type`
            scaling = {key: value for key, value in values["rope_scaling"].items() if value is not None}
            values["rope_scaling"] = scaling | {"rope_type": scaling["type"]}
        return values | {"architectures": [ARCHITECTURES[self.model_type]], "hidden_act": "silu", "torch_dtype": dtype}


def _check_gqa(config: ModelConfig) -> None:
    if config.head_dim is None and config.hidden_size % config.num_attention_heads:
        raise ValueError("hidden_size must be a multiple of num_attention_heads, or head_dim be given")
    if config.num_attention_heads % config.num_key_value_heads:
        raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
    if config.qk_head_dim % 2:
        raise ValueError("the width of a head (head_dim, or hidden_size / num_attention_heads) must be even (rotary pairs)")
    if config.model_type == "qwen2" and config.head_dim not in (None, config.hidden_size // config.num_attention_heads):
        raise ValueError("head_dim of model_type qwen2 can only be hidden_size / num_attention_heads")
    if config.has_experts or config.num_nextn_predict_layers:
        raise ValueError(f"n_routed_experts and num_nextn_predict_layers do not belong to model_type {config.model_type}")
    if config.mlp_bias and config.model_type != "llama":
        raise ValueError(f"mlp_bias does not belong to model_type {config.model_type}")


def _check_mla(config: ModelConfig) -> None:
    for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
        if getattr(config, key) <= 0:
            raise ValueError(f"{key} must be positive for model_type {config.model_type}")
    if config.qk_rope_head_dim % 2:
        raise ValueError("qk_rope_head_dim must be even (rotary pairs)")
    if config.head_dim is not None or config.mlp_bias:
        raise ValueError(f"head_dim and mlp_bias do not belong to model_type {config.model_type}")


def _check_experts(config: ModelConfig) -> None:
    if config.moe_intermediate_size <= 0 or config.num_experts_per_tok <= 0:
        raise ValueError("moe_intermediate_size and num_experts_per_tok must be positive with routed experts")
    if config.n_routed_experts % config.n_group or not 1 <= config.topk_group <= config.n_group:
        raise ValueError("n_routed_experts must divide into n_group groups, and topk_group lie in 1..n_group")
    limit = config.n_routed_experts if config.topk_method == "greedy" else (
        config.n_routed_experts // config.n_group * config.topk_group)
    if config.num_experts_per_tok > limit:
        raise ValueError("num_experts_per_tok exceeds the experts of topk_group groups")
    if config.model_type == "deepseek_v2":
        if config.scoring_func != "softmax" or config.topk_method == "noaux_tc":
            raise ValueError("scoring_func must be softmax and topk_method greedy or group_limited_greedy for model_type "
                             "deepseek_v2; sigmoid with noaux_tc is deepseek_v3")
        if config.norm_topk_prob:
            raise ValueError("norm_topk_prob must be false for model_type deepseek_v2: no published model sets it, and its "
                             "readers disagree about what it then means")
        return
    if config.scoring_func != "sigmoid" or config.topk_method != "noaux_tc":
        raise ValueError("scoring_func must be sigmoid and topk_method noaux_tc for model_type deepseek_v3; softmax is "
                         "deepseek_v2")
    if config.n_group > 1 and config.n_routed_experts // config.n_group < 2:
        raise ValueError("a group needs two experts: its score is the sum of its two best")


def _read_rope(values: dict) -> None:
    """Brings the two published spellings of rotary settings to one: `rope_theta` and `rope_scaling` with `type`."""
    rope = values.pop("rope_parameters", None)  # how transformers 5 writes both
    if rope is not None:
        values.setdefault("rope_theta", rope.get("rope_theta", 10000.0))
        values.setdefault("rope_scaling", {key: value for key, value in rope.items() if key != "rope_theta"})
    scaling = values.get("rope_scaling")
    if isinstance(scaling, dict):
        kind = scaling.get("type") or scaling.get("rope_type") or "default"
        scaling = {key: value for key, value in scaling.items() if key != "rope_type" and value is not None}
        values["rope_scaling"] = None if kind == "default" else scaling | {"type": kind}


def _refuse_other_quantization(quantization: object, source: str) -> None:
    if isinstance(quantization, dict) and quantization.get("quant_method") != "fp8":
        raise UserError(f"{source}: quantization_config.quant_method = {quantization.get('quant_method')!r}: only fp8 in "
                        "blocks (as DeepSeek-V3 publishes) is read. Give the checkpoint it was made from.")
