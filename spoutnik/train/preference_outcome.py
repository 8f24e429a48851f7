"""What became of a stage that learned from preferences: measured on held-out ones, and whether anything was learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.model.transformer import Transformer
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.batches import Document
from spoutnik.train.data.preferences import fit_preferences
from spoutnik.train.dpo import DPOSettings, measured_pairs
from spoutnik.train.health import BETTER_P, MIN_ROWS, WORSE_P, Comparison, Finding, sign_test
from spoutnik.train.kto import KTOSettings, has_two_prompts, measured_thumbs, mismatched
from spoutnik.train.loop import Cost, Stopwatch
from spoutnik.train.preference_losses import kto_reference
from spoutnik.train.preferences import Pair, Thumb, documents_of, reply_log_probs
from spoutnik.train.sft import MEASURED
from spoutnik.train.traces import Traces


@dataclass(frozen=True)
class HeldOut:
    """Held-out pairs or replies, at most MEASURED of them, and their log-probabilities at the start of the stage. others: of
    replies the documents of mismatched ones (`kto.mismatched`), which come after theirs in `before`."""

    examples: Sequence[Pair | Thumb]
    others: Sequence[Document]
    before: Tensor
    settings: DPOSettings | KTOSettings
    spent: Cost

    @staticmethod
    def of(traces: Traces, tokenizer: Tokenizer, model: Transformer, settings: DPOSettings | KTOSettings) -> "HeldOut":
        """Raises UserError where none fits the model."""
        positions, watch = model.config.max_position_embeddings, Stopwatch()
        examples = fit_preferences(traces, tokenizer, positions)[:MEASURED]
        if not examples:
            raise UserError(f"{traces.report.source}: none of its {traces.report.unit} fits the model's {positions} positions. "
                            "Shorten them.")
        mixed = isinstance(examples[0], Thumb) and has_two_prompts(examples)
        others = mismatched(examples, positions) if mixed else []
        before = reply_log_probs(model, [*documents_of(examples), *others], settings.micro_batch_tokens)
        return HeldOut(examples, others, before, settings, watch.lap())

    def measure(self, model: Transformer) -> tuple[dict[str, float], Cost]:
        """By the trained model, against the start."""
        watch = Stopwatch()
        after = reply_log_probs(model, [*documents_of(self.examples), *self.others], self.settings.micro_batch_tokens)
        if isinstance(self.examples[0], Pair):
            measured = measured_pairs(self.examples, self.before, after, self.settings)
        else:
            count = len(self.examples)
            kl = kto_reference(after[count:] - self.before[count:]) if self.others else torch.tensor(0.0)
            measured = measured_thumbs(self.examples, self.before[:count], after[:count], kl, self.settings)
        return measured, self.spent + watch.lap()

    def sentence(self, measured: dict[str, float]) -> str:
        """For people."""
        what = "held-out pairs" if isinstance(self.examples[0], Pair) else "held-out replies"
        text = (f"{100 * measured['accuracy']:.0f} % of {len(self.examples):,} {what} are judged right by the implicit reward "
                "(50 % is chance, and the start)")
        if "margin" in measured:
            text += (f", margin {measured['margin']:.3g}; the better reply is the likelier one per token in "
                     f"{100 * measured['likelier_before']:.0f} % before, {100 * measured['likelier']:.0f} % after")
        if "chosen_change" in measured:
            text += f"; log-probability of good replies {measured['chosen_change']:+.3g} nats per token"
        return text


def learned_findings(comparison: Comparison) -> list[Finding]:
    """Whether the preferences that were trained on are told apart better than at the start, beyond chance. (Worse ones are
    refused as of every stage.)"""
    better, worse = comparison.better
    if comparison.is_better() or len(comparison.after) < MIN_ROWS:
        return []
    return [Finding("nothing learned", f"of {len(comparison.after)} preferences that were trained on, {better} are judged "
                                       f"better than before the stage and {worse} worse, which is chance: it learned nothing. "
                                       "Give it more epochs, or raise learning_rate.")]


def held_out_findings(accuracy: float, count: int) -> list[Finding]:
    """Of held-out preferences, by the share that is judged right."""
    right = round(accuracy * count)
    shown = f"{100 * accuracy:.0f} % of {count} held-out preferences are judged right"
    if sign_test(count - right, right) < WORSE_P:
        return [Finding("held-out preferences", f"only {shown}, fewer than by a coin: it learned something else than what the "
                                                "opinions share. Look at the data (spoutnik data FILE), or lower "
                                                "learning_rate.", True)]
    if count >= MIN_ROWS and not sign_test(right, count - right) < BETTER_P:
        return [Finding("held-out preferences", f"{shown}, which a coin does as well: what was learned does not reach beyond "
                                                "the preferences that were trained on. Give it more of them, or more epochs.")]
    return []
