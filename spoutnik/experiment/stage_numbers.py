"""What the training logs and manifests of stages hold, by the kind of the stage: a finding that compares something else is
refused before hours of work, not after them."""

from spoutnik.recipe.schema import Recipe, Stage
from spoutnik.validation import did_you_mean

_TRAINED = {"step", "seconds", "lr", "loss", "grad_norm", "max_load", "max_rank_load", "anchor_kl"}
_READING = _TRAINED | {"mtp_loss", "balance_loss", "cut_documents", "cut_tokens"}
_PAIRS = _TRAINED | {"accuracy", "margin", "chosen_reward", "rejected_reward", "chosen_log_prob", "chosen_change"}
_RL = _TRAINED | {"clipped", "entropy", "mismatch_kl", "moved_kl", "reward", "well_formed", "truncated", "accuracy", "language",
                  "thought_share", "thought_tokens", "reflections", "reflections_per_100", "checks_or_retries", "preference",
                  "zero_variance", "drawn", "refilled", "tokens", "wasted_right", "wasted_wrong", "wasted_other",
                  "validation_accuracy", "routes_differ", "tokens_differ", "staleness", "tis_cut", "mask_cut",
                  "worker_core_seconds", "transfer_seconds", "transfer_megabytes"}
LOGGED = {"pretrain": _READING, "midtrain": _READING, "sft": _READING, "distill": _READING, "dpo": _PAIRS,
          "kto": _PAIRS | {"kl"}, "grpo": _RL, "reward_model": _TRAINED | {"accuracy"}, "reject": set()}

_ADAPTED = {"adapter_parameters", "delta_survival"}
_LEARNED = {"loss", "accuracy", "margin", "chosen_change", "anchor_kl"} | _ADAPTED
_HELD_OUT = {f"held_out_{name}"
             for name in ("accuracy", "margin", "loss", "kl", "likelier_before", "likelier", "chosen_change")}
_TAUGHT = {"loss", "traces", "anchor_kl", "held_out_loss_before", "held_out_loss"} | _ADAPTED
MADE = {"pretrain": {"loss", "mtp_loss"}, "midtrain": {"loss", "mtp_loss"}, "sft": _TAUGHT, "distill": _TAUGHT,
        "dpo": _LEARNED | _HELD_OUT | {"pairs"}, "kto": _LEARNED | _HELD_OUT | {"replies"},
        "grpo": {"reward", "accuracy", "mismatch_kl", "anchor_kl"} | _ADAPTED,
        "reject": {"sampled", "kept", "kept_share"},
        "reward_model": {"loss", "held_out_pair_accuracy", "held_out_pairs_of_form", "held_out_pairs_of_relevance",
                         "held_out_pairs_of_truth", "constant_score", "right_score"}}


def missing_number(metric: str, stage: Stage, recipe: Recipe) -> str | None:
    """A sentence where a metric log.KEY, area.KEY or made.KEY is of no stage of this kind, or not of this one."""
    source, _, key = metric.partition(".")
    known = {"log": LOGGED, "area": LOGGED, "made": MADE}.get(source, {}).get(stage.kind)
    if known is None or not key:
        return None
    what = "manifest" if source == "made" else "log"
    if key not in known:
        has = f"has {', '.join(sorted(known))}" if known else "has no rows"
        return f"{metric}: the {what} of a {stage.kind} stage has no '{key}'.{did_you_mean(key, known)} It {has}."
    if key == "preference" and not stage.settings.general_share:
        return f"{metric}: without general prompts (settings.general_share) the stage has no such scores."
    if key == "validation_accuracy" and not recipe.validation.problems:
        return f"{metric}: validation.problems is 0. Give it some, or compare log.accuracy."
    return None
