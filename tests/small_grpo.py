"""A policy that GRPO trains in a second, its settings and its task."""

import tiny

from spoutnik.tasks.catalog import find_tasks
from spoutnik.train.grpo_settings import GRPOSettings

ARITHMETIC = find_tasks(["arithmetic"])


def settings(**changes) -> GRPOSettings:
    return GRPOSettings(**{"steps": 4, "prompts_per_step": 3, "group_size": 4, "max_tokens": 8, "learning_rate": 0.02,
                           "optimizer": "adamw", "warmup": 0, "weight_decay": 0.0, "balance_loss_alpha": 0.0,
                           "bias_update_speed": 0.0} | changes)


def model(base=tiny.QWEN, **changes):
    return tiny.model(base, vocab_size=300, max_position_embeddings=512, **changes)
