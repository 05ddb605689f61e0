"""Where an answer came from: attention to tokens, shares of chunks, and the moments they make.

`omnidrop.evidence` says which attention is read; here it is turned into moments. All of it is a few
operations on one row of one layer. During the prefill the attention is only noted
(`Attended`); the rest is done when the trace is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from omnidrop.report.trace import ChunkTrace, Moment

#: Moments that are reported at most.
MOST = 3

#: A chunk belongs to a moment with at least this share of the moment's strongest chunk.
BESIDE = 0.5

#: A further moment has at least this share of the strongest chunk of all, and more than an even
#: share of the clip.
FURTHER = 0.25


@dataclass(frozen=True)
class Attended:
    """Attention of one layer to the AV tokens that entered it.

    Attributes
    ----------
    layer : int
    weights : Tensor, (H, m) or (1, m) float32
        Of each head, or the mean over all.
    neutral : Tensor, (H, m) float32, or None
        Of the text row between clip and question.
    """

    layer: int
    weights: torch.Tensor
    neutral: torch.Tensor | None = None


def token_shares(
    attention: torch.Tensor, heads: Sequence[int] = (), neutral: torch.Tensor | None = None
) -> torch.Tensor:
    """Return each token's share of the attention that some heads pay to the clip.

    Parameters
    ----------
    attention : Tensor, (H, m) float32
        Attention of each head to the m surviving AV tokens.
    heads : sequence of int
        Heads that count; empty for all.
    neutral : Tensor, (H, m) float32, optional
        Attention of a row that has not seen the question. Its share is subtracted, and what is left
        above zero counts.

    Returns
    -------
    Tensor, (m,) float32
        Sums to 1, or to 0 where nothing is left.
    """
    shares = _normalised(_over(attention, heads))
    if neutral is None:
        return shares
    return _normalised((shares - _normalised(_over(neutral, heads))).clamp_min(0))


def prompt_shares(
    attended: Sequence[Attended],
    survivors: Sequence[torch.Tensor],
    heads: Sequence[int],
    length: int,
) -> torch.Tensor | None:
    """Return the share of each token of a prompt, mean over the layers that were read.

    Parameters
    ----------
    attended : sequence of Attended
    survivors : sequence of Tensor
        Prompt indices of the AV tokens that entered each layer.
    heads : sequence of int
        As for `token_shares`; not used where a mean over all heads was noted.
    length : int
        Tokens of the prompt, N.

    Returns
    -------
    Tensor, (N,) float32 on the CPU, or None
        Sums to 1; None if nothing was read.
    """
    shares = torch.zeros(length, dtype=torch.float32)
    for one in attended:
        weights = one.weights.cpu()
        neutral = None if one.neutral is None else one.neutral.cpu()
        chosen = heads if len(weights) > 1 else ()
        part = token_shares(weights, chosen, neutral)
        shares.index_add_(0, survivors[one.layer], part / len(attended))
    return shares if float(shares.sum()) > 0 else None


def chunk_shares(
    scores: torch.Tensor, chunk: torch.Tensor, count: int, *, per_token: bool = False
) -> tuple[float, ...] | None:
    """Return each chunk's share of the scores of its tokens.

    Parameters
    ----------
    scores : Tensor, (n,) float32
        One per token, 0 or more; 0 for a token that was dropped.
    chunk : Tensor, (n,) int
        Chunk of each token; -1 for none.
    count : int
        Chunks of the clip.
    per_token : bool
        A chunk counts by the mean over its tokens that have a score.

    Returns
    -------
    tuple of float, or None
        They sum to 1; None if nothing has a score.
    """
    real = chunk >= 0
    index, values = chunk[real].long(), scores[real].double()
    mass = torch.zeros(count, dtype=torch.float64).index_add_(0, index, values)
    if per_token:
        alive = torch.zeros(count, dtype=torch.float64).index_add_(0, index, (values > 0).double())
        mass = mass / alive.clamp_min(1)
    total = float(mass.sum())
    return tuple((mass / total).tolist()) if total > 0 else None


def moments(
    spans: Sequence[tuple[float, float]], shares: Sequence[float], most: int = MOST
) -> tuple[Moment, ...]:
    """Return the parts of a clip with most of the evidence, the strongest first.

    A moment is the strongest chunk that is left and the neighbours on both sides that are at least
    half as strong. So it grows where the evidence lasts, and never beyond what is strong. There is
    none if it would be the whole clip, which says nothing.

    Parameters
    ----------
    spans : sequence of (float, float)
        Start and end of each chunk in seconds, in order of time.
    shares : sequence of float
        Share of the evidence in each chunk; they sum to 1.
    most : int
        Moments returned at most.
    """
    left = list(shares)
    found: list[Moment] = []
    first = max(left, default=0.0)
    while left and len(found) < most:
        peak = max(left)
        if peak <= 0 or (found and (peak < FURTHER * first or peak <= 1 / len(left))):
            break
        start = end = left.index(peak)
        while start > 0 and left[start - 1] >= BESIDE * peak:
            start -= 1
        while end + 1 < len(left) and left[end + 1] >= BESIDE * peak:
            end += 1
        if end + 1 - start == len(left):
            return ()
        share = sum(left[start : end + 1])
        found.append(Moment(spans[start][0], spans[end][1], share))
        left[start : end + 1] = [0.0] * (end + 1 - start)
    return tuple(sorted(found, key=lambda moment: -moment.share))


def moments_of(chunks: Sequence[ChunkTrace]) -> tuple[Moment, ...]:
    """Return where an answer came from by its chunks' relevance; none if it was not measured."""
    shares = [chunk.relevance for chunk in chunks if chunk.relevance is not None]
    return moments([(chunk.start, chunk.end) for chunk in chunks], shares)


def _over(attention: torch.Tensor, heads: Sequence[int]) -> torch.Tensor:
    return attention[list(heads)].mean(0) if heads else attention.mean(0)


def _normalised(values: torch.Tensor) -> torch.Tensor:
    total = values.sum()
    return values / total if float(total) > 0 else values
