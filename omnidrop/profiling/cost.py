"""Analytic cost of an answer: floating-point operations and bytes, from shapes and token counts.

A multiply and an add count as two operations. Counted are the matrix products (projections, MLPs,
attention scores and sums, `lm_head`); norms, rotary, softmax and activations are under one percent
and left out. The numbers are what the arithmetic needs, not what a kernel spends: masked halves of
causal attention are not counted, so a kernel that computes them anyway spends more.

Two questions are asked of a prefill. What a method costs, compared with others: every layer is
counted whole, as other engines run it and papers count it. How near a measured time comes to the
arithmetic: then the last layer counts as we run it, which is for one row only, besides all keys and
values (`as_run`). Choosing tokens is not counted (`selection_flops` gives it).

Prefill is bound by arithmetic and decoding by bandwidth, so FLOPs predict the first and bytes
(`weights_bytes` + `kv_bytes` per token) the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class DecoderShape(Protocol):
    """Sizes of a decoder, as `omnidrop.models.adapter.TextShape` has them.

    Attributes
    ----------
    layers, hidden, heads, kv_heads, head_dim, vocab : int
    intermediate : int
        Width of the gated MLP; for a mixture of experts, the width active per token.
    """

    @property
    def layers(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def intermediate(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def vocab(self) -> int: ...


class EncoderShape(Protocol):
    """Sizes that vision and audio towers share."""

    @property
    def layers(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def intermediate(self) -> int: ...


class VisionSizes(EncoderShape, Protocol):
    """Sizes of a vision tower, as `omnidrop.models.adapter.VisionShape` has them."""

    @property
    def patch(self) -> int: ...
    @property
    def temporal_patch(self) -> int: ...
    @property
    def merge(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def full_attention(self) -> tuple[int, ...]: ...
    @property
    def output(self) -> int: ...


class AudioSizes(EncoderShape, Protocol):
    """Sizes of an audio tower, as `omnidrop.models.adapter.AudioShape` has them."""

    @property
    def mel_bins(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def output(self) -> int: ...


def layer_weights(shape: DecoderShape) -> int:
    """Return the weights of one decoder layer's matrices: q, k, v, o, and the gated MLP."""
    attention = 2 * shape.heads + 2 * shape.kv_heads
    return shape.hidden * (attention * shape.head_dim + 3 * shape.intermediate)


def layer_flops(shape: DecoderShape, tokens: int) -> int:
    """Return the operations of one decoder layer over `tokens` tokens with causal attention.

    Token i sees i + 1 tokens, so scores and sums each take
    `2 · heads · head_dim · tokens · (tokens + 1) / 2`.
    """
    attention = 2 * shape.heads * shape.head_dim * tokens * (tokens + 1)
    return 2 * tokens * layer_weights(shape) + attention


def last_layer_flops(shape: DecoderShape, tokens: int) -> int:
    """Return the operations of a layer that is asked for its last row alone.

    Keys and values of all tokens are made, as decoding needs them.
    """
    both = 2 * shape.kv_heads * shape.head_dim
    row = layer_weights(shape) - shape.hidden * both
    return 2 * (tokens * shape.hidden * both + row + 2 * shape.heads * shape.head_dim * tokens)


def prefill_flops(
    shape: DecoderShape, text_tokens: int, counts: Sequence[int], *, as_run: bool = False
) -> float:
    """Return the operations of a prefill whose layers see fewer and fewer tokens.

    Parameters
    ----------
    shape : DecoderShape
    text_tokens : int
        Tokens that every layer sees: text and markers.
    counts : sequence of int, length L
        Audio and video tokens entering each layer.
    as_run : bool
        Count one row of the last layer, as our engine runs it, instead of the whole layer.

    Returns
    -------
    float
        All layers, and `lm_head` on the last position only.
    """
    lengths = [text_tokens + count for count in counts]
    body = sum(layer_flops(shape, length) for length in lengths)
    if as_run and lengths:
        body += last_layer_flops(shape, lengths[-1]) - layer_flops(shape, lengths[-1])
    return float(body + head_flops(shape))


def head_flops(shape: DecoderShape) -> int:
    """Return the operations of `lm_head` on one position."""
    return 2 * shape.hidden * shape.vocab


def decode_flops(shape: DecoderShape, lengths: Sequence[int], steps: int) -> float:
    """Return the operations of `steps` decoding steps.

    The first answer token comes out of the prefill, so n answer tokens take n − 1 steps.

    Parameters
    ----------
    shape : DecoderShape
    lengths : sequence of int, length L
        Tokens in each layer's cache when decoding starts.
    steps : int
        Tokens fed, one at a time; step s sees `length + s` tokens (s from 1).
    """
    seen = steps * sum(lengths) + len(lengths) * steps * (steps + 1) // 2
    attention = 4 * shape.heads * shape.head_dim * seen
    linear = 2 * layer_weights(shape) * len(lengths) + head_flops(shape)
    return float(steps * linear + attention)


def selection_flops(shape: DecoderShape, rows: int, lengths: Iterable[int]) -> float:
    """Return the operations of scoring: what a query-guided method adds to a prefill.

    Parameters
    ----------
    shape : DecoderShape
    rows : int
        Text rows that ask.
    lengths : iterable of int
        Sequence length, text included, in each layer where something is dropped.
    """
    width = shape.heads * shape.head_dim
    return float(sum(2 * rows * width * (shape.hidden + length) for length in lengths))


def kv_bytes(shape: DecoderShape, lengths: Iterable[int], bytes_per_value: float = 2) -> int:
    """Return the bytes of keys and values, given the tokens in each layer's cache.

    Parameters
    ----------
    shape : DecoderShape
    lengths : iterable of int
        Tokens in each layer's cache, text included.
    bytes_per_value : float
        2 for bfloat16 and float16, 4 for float32.
    """
    return round(2 * shape.kv_heads * shape.head_dim * bytes_per_value * sum(lengths))


def weights_bytes(
    shape: DecoderShape,
    bytes_per_weight: float = 2,
    *,
    head_bytes: float | None = None,
    tied: bool = False,
) -> int:
    """Return the bytes of a decoder's weights: matrices, embeddings, `lm_head`, norms, q k v bias.

    Parameters
    ----------
    shape : DecoderShape
    bytes_per_weight : float
        Of the layers' matrices: 2 for bfloat16, 1 for 8-bit, about 0.53 for 4-bit NF4 with its
        scales.
    head_bytes : float, optional
        Of everything that is never quantised (embeddings, `lm_head`, norms, biases); by default 2,
        or `bytes_per_weight` where that is more.
    tied : bool
        True if `lm_head` shares the embedding matrix.
    """
    other = max(2.0, bytes_per_weight) if head_bytes is None else head_bytes
    matrices = shape.layers * layer_weights(shape)
    tables = shape.vocab * shape.hidden * (1 if tied else 2)
    biases = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    small = shape.layers * (2 * shape.hidden + biases) + shape.hidden
    return round(matrices * bytes_per_weight + (tables + small) * other)


def tower_flops(
    shape: EncoderShape,
    windows: Iterable[int],
    *,
    full: Iterable[int] = (),
    full_layers: int = 0,
    gated: bool = False,
    other_weights: int = 0,
) -> float:
    """Return the operations of a vision or audio tower whose attention stays inside windows.

    Parameters
    ----------
    shape : EncoderShape
        The tower's sizes; head count times head width is its hidden width.
    windows : iterable of int
        Tower tokens (patches, or mel frames after striding) in each attention window.
    full : iterable of int
        The same tokens, by the wider spans that `full_layers` attend over (a whole frame).
    full_layers : int
        Layers that attend over the wider spans.
    gated : bool
        True if the MLP has three matrices (vision), False if two (audio).
    other_weights : int
        Weights met once by every token outside the layers: patch embedding, convolutions, merger
        (a merger over groups of 4 tokens counts a quarter of its weights).
    """
    windows, full = tuple(windows), tuple(full)
    weights = shape.hidden * (4 * shape.hidden + (3 if gated else 2) * shape.intermediate)
    linear = 2 * sum(windows) * (shape.layers * weights + other_weights)
    pairs = (shape.layers - full_layers) * sum(n * n for n in windows)
    pairs += full_layers * sum(n * n for n in full)
    return float(linear + 4 * shape.hidden * pairs)


def vision_flops(shape: VisionSizes, grid: tuple[int, int, int]) -> float:
    """Return the operations of a vision tower over a grid of (t, h, w) patches."""
    steps, height, width = grid
    side = shape.window // shape.patch
    windows = [
        min(side, height - top) * min(side, width - left)
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    group = shape.merge**2
    embedding = 3 * shape.temporal_patch * shape.patch**2 * shape.hidden
    merger = group * shape.hidden * (group * shape.hidden + shape.output) // group
    frame = tower_flops(
        shape,
        windows,
        full=(height * width,),
        full_layers=len(shape.full_attention),
        gated=True,
        other_weights=embedding + merger,
    )
    return steps * frame


def audio_flops(shape: AudioSizes, tokens: int) -> float:
    """Return the operations of an audio tower that makes `tokens` tokens.

    A token is two positions of the tower, a position two mel frames.
    """
    positions, span = 2 * tokens, shape.window // 2
    windows = [min(span, positions - at) for at in range(0, positions, span)]
    convolutions = 3 * shape.hidden * (2 * shape.mel_bins + shape.hidden)
    projection = shape.hidden * shape.output // 2
    return tower_flops(shape, windows, other_weights=convolutions + projection)
