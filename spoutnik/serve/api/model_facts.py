"""Facts about a served model, for the descriptions that the APIs give of it."""

from collections import Counter
from functools import cache
from pathlib import Path

from spoutnik.generation.service import ServedModel
from spoutnik.model.accounting import account
from spoutnik.model.checkpoint import read_header
from spoutnik.model.config import ModelConfig
from spoutnik.serve.api.schemas import ModelMeta


def model_config(served: ServedModel) -> ModelConfig | None:
    """None where the folder does not say before the model is loaded."""
    return served.llm.config if served.llm is not None else _read_config(served.folder)


@cache
def _read_config(folder: Path) -> ModelConfig | None:
    return ModelConfig.load(folder) if (folder / "config.json").exists() else None


@cache
def count_parameters(config: ModelConfig) -> int:
    return account(config).total_parameters


@cache
def weights_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@cache
def precision(folder: Path) -> str:
    """The type of most weights in the files, as safetensors names it."""
    path = next(iter(sorted(folder.glob("*.safetensors"))), None)
    if path is None:
        return ""
    sizes = Counter()
    for tensor in read_header(path)[0].values():
        sizes[tensor.dtype] += tensor.size
    return sizes.most_common(1)[0][0]


def capabilities(served: ServedModel) -> list[str]:
    thinks = ["thinking"] if served.thinks else []
    return ["completion", "tools", *thinks] if served.tokenizer.chat_template else ["completion"]


def context_length(served: ServedModel) -> int:
    """Tokens that requests are held to: the cache may hold fewer than the model can read."""
    return served.max_model_len if served.llm is None else served.llm.max_model_len


def model_meta(served: ServedModel) -> ModelMeta | None:
    config = model_config(served)
    return config and ModelMeta(n_ctx=context_length(served), n_ctx_train=config.max_position_embeddings,
                                n_vocab=config.vocab_size, n_embd=config.hidden_size, n_params=count_parameters(config),
                                size=weights_size(served.folder))
