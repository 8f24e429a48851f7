"""From logits to the tokens that a sample keeps: first tokens, accepted drafts, log-probabilities, broken logits."""

from collections.abc import Iterable

from torch import Tensor

from spoutnik.engine.input_batch import InputBatch
from spoutnik.engine.request import Sample
from spoutnik.engine.sampler import SamplingMetadata, gather_logprobs, sample_tokens, uniforms_of
from spoutnik.engine.scheduler import Chunk

NOT_FINITE = ("the model's logits are not finite numbers: its weights are damaged, or overflow in the type they are "
              "computed in. Restore the checkpoint, or compute in float32.")
ReportedLogits = list[tuple[Sample, Tensor]]  # (tokens, V), of samples that report top log-probabilities


def raw_logits(samples: Iterable[tuple[Sample, Tensor]]) -> ReportedLogits:
    """Before any change, of those that report the model's own distribution."""
    return [(sample, logits.clone()) for sample, logits in samples if not sample.reports_processed]


def processed_logits(samples: Iterable[tuple[Sample, Tensor]]) -> ReportedLogits:
    """After all changes, of those that report what is sampled from, at their temperature."""
    return [(sample, logits / (sample.params.temperature or 1.0)) for sample, logits in samples if sample.reports_processed]


def zero_broken(logits: Tensor) -> list[int]:
    """Sets rows of logits (B, V) that are not all finite to zero, so that sampling works, and returns them."""
    finite = logits.sum(-1).isfinite()
    if bool(finite.all()):
        return []
    broken = (~finite).nonzero()[:, 0]
    logits[broken] = 0.0
    return broken.tolist()


def sample_first_tokens(samples: list[Sample], logits: Tensor) -> int:
    """Samples each sample's first token from logits (samples, V); returns how many. Some samples end with it."""
    reporting = [(s, logits[i:i + 1]) for i, s in enumerate(samples) if s.top_logprobs is not None]
    reported = raw_logits(reporting)
    broken = zero_broken(logits)
    for i, sample in enumerate(samples):
        sample.process(logits[i], 0)
    reported += processed_logits(reporting)
    metadata = SamplingMetadata.of([s.params for s in samples], uniforms_of((s.seed, 0) for s in samples))
    tokens, logprobs = sample_tokens(logits, metadata)
    for i, (sample, token, logprob) in enumerate(zip(samples, tokens.tolist(), logprobs.tolist())):
        if i in broken:
            sample.fail(NOT_FINITE)
            continue
        sample.token_ids, sample.logprobs = [token], [logprob]
        if sample.checks_tokens:
            sample.accept_tokens([token])
        if token in sample.request.stop_ids or sample.params.max_tokens == 1:
            sample.finish_at(token)
    for sample, row in reported:
        if sample.token_ids:
            sample.top_logprobs += gather_logprobs(row, sample.params.logprobs, sample.token_ids)
    return len(samples) - len(broken)


def add_prompt_logprobs(chunk: Chunk, logits: Tensor) -> None:
    """From the logits (count, V) of a chunk: each prompt token's come from the token before."""
    request, first = chunk.sequence.sample.request, chunk.start + 1
    tokens = request.prompt_token_ids[first:first + chunk.count]
    del request.prompt_logprobs[first:]  # of a prefill that was preempted
    if tokens:
        request.prompt_logprobs += gather_logprobs(logits[:len(tokens)], request.params.prompt_logprobs, tokens)


def accept_drafts(sample: Sample, tokens: list[int], budget: int) -> list[int]:
    """The tokens that count, of those sampled after a row's last token and each of its drafts: the first, and a further one
    while the draft before it is what was sampled in its place (so that it is what plain decoding gives) and nothing has ended.
    budget: tokens left of max_tokens."""
    count = 1
    while (count < min(len(tokens), budget) and tokens[count - 1] == sample.drafts[count - 1]
           and tokens[count - 1] not in sample.request.stop_ids):
        count += 1
    return tokens[:sample.accept_tokens(tokens[:count])] if sample.checks_tokens else tokens[:count]


def accept_one_each(input_batch: InputBatch, tokens: Tensor, logprobs: Tensor, broken: list[int], checked: Iterable[Sample],
                    reported: ReportedLogits) -> list[int]:
    """The next token (rows,) of all rows at once; returns the rows that end. checked: samples with `checks_tokens`."""
    input_batch.append(tokens, logprobs)
    for sequence in input_batch.sequences:
        sequence.num_tokens += 1
    ended = set(input_batch.finished().nonzero()[:, 0].tolist())
    for row in broken:
        input_batch.sequences[row].sample.fail(NOT_FINITE)
        input_batch.drop_last_token(row)
        ended.add(row)
    for sample in checked:
        row = sample.sequence.row
        if sample.finish_reason is None and sample.accept_tokens([int(tokens[row])]) and sample.finish_reason is not None:
            ended.add(row)
    for sample, logits in reported:
        if sample.finish_reason != "error":
            sample.top_logprobs += gather_logprobs(logits, sample.params.logprobs, [int(tokens[sample.sequence.row])])
    return sorted(ended)
