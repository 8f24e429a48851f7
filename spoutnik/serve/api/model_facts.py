"""Facts about a served model, for the descriptions that the APIs give of it."""

from collections import Counter
from functools import cache
from pathlib import Path

from spoutnik.generation.service import ServedModel
from spoutnik.model.accounting import account
from spoutnik.model.checkpoint import is_gguf, read_header, weight_files
from spoutnik.model.config import ModelConfig
from spoutnik.model.gguf_header import read_gguf_header
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
    return sum(path.stat().st_size for path in weight_files(folder) if path.exists())


@cache
def precision(folder: Path) -> str:
    """The type of most weights in the (first) file, as its format names it."""
    sizes = Counter()
    for path in [path for path in weight_files(folder) if path.exists()][:1]:
        if is_gguf([path]):
            kinds = [(placed.kind, placed.size) for placed in read_gguf_header(path, vocabulary=False).tensors.values()]
        else:
            kinds = [(stored.dtype, stored.size) for stored in read_header(path)[0].values()]
        for kind, size in kinds:
            sizes[kind] += size
    return max(sizes, key=sizes.__getitem__, default="")


def capabilities(served: ServedModel) -> list[str]:
    thinks = ["thinking"] if served.thinks else []
    return ["completion", "tools", *thinks] if served.tokenizer.chat_template else ["completion"]


def model_meta(served: ServedModel) -> ModelMeta | None:
    config = model_config(served)
    return config and ModelMeta(n_ctx=served.max_model_len, n_ctx_train=config.max_position_embeddings,
                                n_vocab=config.vocab_size, n_embd=config.hidden_size, n_params=count_parameters(config),
                                size=weights_size(served.folder))
