"""From logits to a sample's tokens: first ones, likely ones, and what must be looked at one by one."""

from collections.abc import Iterable

from torch import Tensor

from spoutnik.engine.input_batch import InputBatch
from spoutnik.engine.request import Sample
from spoutnik.engine.sampler import SamplingMetadata, likeliest, sample, uniforms_of
from spoutnik.engine.scheduler import Chunk

NOT_FINITE = ("the model's logits are not finite numbers: its weights are damaged, or overflow in the type they are "
              "computed in. Restore the checkpoint, or compute in float32.")
Asked = list[tuple[Sample, Tensor]]  # samples that report likely tokens, with their raw logits (places, V)


def replace_broken(logits: Tensor) -> list[int]:
    """Rows of logits (W, V) that are not all finite; they become zeros, so that sampling can go on."""
    finite = logits.sum(-1).isfinite()
    if bool(finite.all()):
        return []
    broken = (~finite).nonzero()[:, 0]
    logits[broken] = 0.0
    return broken.tolist()


def first_tokens(samples: list[Sample], logits: Tensor) -> int:
    """The first token of each sample, from logits (samples, V); returns how many were made. Some samples end with it."""
    asked = [(s, logits[i:i + 1].clone()) for i, s in enumerate(samples) if s.top_logprobs is not None]
    broken = replace_broken(logits)
    for i, made in enumerate(samples):
        for processor in made.logits_processors:
            processor.apply(logits[i], 0)
    tokens, logprobs = sample(logits, SamplingMetadata.of([s.params for s in samples], uniforms_of((s.seed,
                                                                                                    0) for s in samples)))
    for i, (made, token, logprob) in enumerate(zip(samples, tokens.tolist(), logprobs.tolist())):
        if i in broken:
            made.fail(NOT_FINITE)
            continue
        made.token_ids, made.logprobs = [token], [logprob]
        if made.watched:
            made.see([token])
        if token in made.request.ends or made.params.max_tokens == 1:
            made.end_with(token)
    for made, row in asked:
        if made.token_ids:
            made.top_logprobs += likeliest(row, made.params.logprobs, made.token_ids)
    return len(samples) - len(broken)


def read_prompt(chunk: Chunk, logits: Tensor) -> None:
    """The prompt's own log-probabilities, from the logits (count, V) of a chunk: each token's come from the one before."""
    request, first = chunk.sequence.owner.request, chunk.start + 1
    tokens = request.prompt_token_ids[first:first + chunk.count]
    del request.prompt_logprobs[first:]  # of a computation that was given up
    if tokens:
        request.prompt_logprobs += likeliest(logits[:len(tokens)], request.params.prompt_logprobs, tokens)


def accepted(made: Sample, tokens: list[int], room: int) -> list[int]:
    """Of the tokens chosen after a row's last one and after each of its drafts, those that count: a token does while the drafts
    before it were the tokens chosen in their places (then it is what plain decoding would have chosen) and nothing has ended.
    room: how many may still come."""
    count = 1
    while count < len(tokens) and tokens[count - 1] == made.drafts[count - 1] and count < room \
            and tokens[count - 1] not in made.request.ends:
        count += 1
    return tokens[:made.see(tokens[:count])] if made.watched else tokens[:count]


def accept_all(rows: InputBatch, tokens: Tensor, logprobs: Tensor, broken: list[int], watched: Iterable[Sample],
               asked: Asked) -> list[int]:
    """The next token (rows,) of many rows at once; returns those that are over."""
    rows.append(tokens, logprobs)
    for sequence in rows.sequences:
        sequence.length += 1
    leaving = set(rows.over().nonzero()[:, 0].tolist())
    for row in broken:
        rows.sequences[row].owner.fail(NOT_FINITE)
        rows.take_back(row)
        leaving.add(row)
    for made in watched:
        row = made.sequence.row
        if made.finish_reason is None and made.see([int(tokens[row])]) and made.finish_reason is not None:
            leaving.add(row)
    for made, logits in asked:
        if made.finish_reason != "error":
            made.top_logprobs += likeliest(logits, made.params.logprobs, [int(tokens[made.sequence.row])])
    return sorted(leaving)
