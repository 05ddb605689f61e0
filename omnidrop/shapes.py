"""Sizes of a model's parts, and what they cost: operations and bytes, from counts of tokens.

A multiply and an add count as two operations. Counted are the matrix products (projections, MLPs,
attention scores and sums, `lm_head`); norms, rotary angles, softmax and activations are under one
percent and left out. The numbers are what the arithmetic needs, not what a kernel spends: masked
halves of causal attention are not counted, so a kernel that computes them anyway spends more.

A prefill is counted in two ways. To compare methods, every layer is counted whole, as other engines
run it and papers count it. To judge a measured time, the last layer is counted as this engine runs
it: all keys and values, and one row of the rest (`as_run`).

Prefill is bound by arithmetic and decoding by memory bandwidth: operations predict the first,
bytes (weights once per token, and the KV cache) the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from fractions import Fraction
from typing import Any

#: Rows that pass a norm or an MLP of the decoder together, at most: bounds activation memory.
MLP_ROWS = 2048

#: Patches that pass the vision encoder together, at most: bounds its activations for any clip.
VISION_BATCH = 8192

#: The same on a GPU, whose matrix products need more rows to reach their speed.
VISION_BATCH_GPU = 16384

#: Bytes of a patch's value before the vision encoder (float32).
_PIXEL_BYTES = 4


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in place of the dense MLP.

    Attributes
    ----------
    count : int
        Routed experts of a layer.
    active : int
        How many of them a token passes.
    width : int
        Width of one expert's gated MLP.
    shared : int
        Width of the expert that every token passes besides; 0 for none.
    dense_layers : int
        Layers, from the first, that keep a dense MLP of `TextShape.intermediate`.
    """

    count: int
    active: int
    width: int
    shared: int = 0
    dense_layers: int = 0


@dataclass(frozen=True)
class TextShape:
    """Sizes of the decoder.

    Attributes
    ----------
    layers, hidden : int
    intermediate : int
        Width of the dense, gated MLP.
    heads, kv_heads, head_dim : int
        Query heads, key-value heads, and the width of each; `heads · head_dim` need not be
        `hidden`.
    vocab : int
    experts : Experts or None
    tied : bool
        Whether `lm_head` is the embedding table.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    experts: Experts | None = None
    tied: bool = False

    @property
    def attention_weights(self) -> int:
        """Weights of one layer's q, k, v and o projections."""
        return self.hidden * 2 * (self.heads + self.kv_heads) * self.head_dim

    def _dense(self, layer: int) -> bool:
        return self.experts is None or layer < self.experts.dense_layers

    def mlp_width(self, layer: int = -1) -> int:
        """Return the MLP width that one token passes in a layer (-1: the last)."""
        layer %= max(1, self.layers)
        if self.experts is None or self._dense(layer):
            return self.intermediate
        return self.experts.active * self.experts.width + self.experts.shared

    def layer_weights(self, layer: int = -1, *, active: bool = True) -> int:
        """Return the weights of a layer's matrices.

        Parameters
        ----------
        layer : int
            -1 is the last.
        active : bool
            Count what one token passes; otherwise all experts, as they lie in memory.
        """
        layer %= max(1, self.layers)
        width, router = self.mlp_width(layer), 0
        if self.experts is not None and not self._dense(layer):
            router = self.hidden * self.experts.count
            if not active:
                width = self.experts.count * self.experts.width + self.experts.shared
        return self.attention_weights + self.hidden * 3 * width + router

    @property
    def table_weights(self) -> int:
        """Weights of the embedding table and of `lm_head`."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def linear_weights(self) -> int:
        """Weights of all layers' matrices, all experts counted: what 4-bit and 8-bit quantise."""
        return sum(self.layer_weights(layer, active=False) for layer in range(self.layers))

    @property
    def parameters(self) -> int:
        """Weights of matrices and tables; norms and biases, under a thousandth, are left out."""
        return self.linear_weights + self.table_weights

    def weight_bytes(self, bytes_per_weight: float, table_bytes: float | None = None) -> int:
        """Return the bytes of the weights in memory.

        Parameters
        ----------
        bytes_per_weight : float
            Of the layers' matrices: 2 for bfloat16, about 0.53 for 4-bit NF4 with its scales.
        table_bytes : float, optional
            Of the tables, which are never quantised; by default 2, or `bytes_per_weight` where that
            is more.
        """
        tables = max(2.0, bytes_per_weight) if table_bytes is None else table_bytes
        return round(self.linear_weights * bytes_per_weight + self.table_weights * tables)

    def kv_bytes(self, lengths: Iterable[int], bytes_per_value: float = 2) -> int:
        """Return the bytes of keys and values, given the tokens in each layer's cache.

        Parameters
        ----------
        lengths : iterable of int
            Tokens in each layer's cache, text included.
        bytes_per_value : float
            2 for bfloat16 and float16, 4 for float32.
        """
        return round(2 * self.kv_heads * self.head_dim * bytes_per_value * sum(lengths))

    @property
    def head_flops(self) -> int:
        """Operations of `lm_head` on one position."""
        return 2 * self.hidden * self.vocab

    def layer_flops(self, tokens: int, layer: int = -1) -> int:
        """Return the operations of one layer over `tokens` tokens with causal attention.

        Token i sees i + 1 tokens, so scores and sums each take
        `2 · heads · head_dim · tokens · (tokens + 1) / 2`.
        """
        attention = 2 * self.heads * self.head_dim * tokens * (tokens + 1)
        return 2 * tokens * self.layer_weights(layer) + attention

    def last_layer_flops(self, tokens: int) -> int:
        """Return the operations of the last layer where only its last row is asked for.

        Keys and values of all tokens are computed, as decoding needs them.
        """
        both = 2 * self.kv_heads * self.head_dim
        row = self.layer_weights() - self.hidden * both
        return 2 * (tokens * self.hidden * both + row + 2 * self.heads * self.head_dim * tokens)

    def prefill_flops(
        self, text_tokens: int, counts: Sequence[int], *, as_run: bool = False
    ) -> float:
        """Return the operations of a prefill whose layers see fewer and fewer tokens.

        Parameters
        ----------
        text_tokens : int
            Tokens that every layer sees: text and markers.
        counts : sequence of int, length L
            Audio and video tokens entering each layer.
        as_run : bool
            Count one row of the last layer, as this engine runs it, instead of the whole layer.

        Returns
        -------
        float
            All layers, and `lm_head` on the last position only.
        """
        lengths = [text_tokens + count for count in counts]
        body = sum(self.layer_flops(length, layer) for layer, length in enumerate(lengths))
        if as_run and lengths:
            last = len(lengths) - 1
            body += self.last_layer_flops(lengths[-1]) - self.layer_flops(lengths[-1], last)
        return float(body + self.head_flops)

    def decode_flops(self, lengths: Sequence[int], steps: int) -> float:
        """Return the operations of `steps` decoding steps.

        The first answer token comes out of the prefill, so n answer tokens take n - 1 steps.

        Parameters
        ----------
        lengths : sequence of int, length L
            Tokens in each layer's cache when decoding starts.
        steps : int
            Tokens fed, one at a time; step s sees `length + s` tokens (s from 1).
        """
        pairs = steps * sum(lengths) + len(lengths) * steps * (steps + 1) // 2
        attention = 4 * self.heads * self.head_dim * pairs
        weights = sum(self.layer_weights(layer) for layer in range(len(lengths)))
        return float(steps * (2 * weights + self.head_flops) + attention)

    def peak_bytes(self, lengths: Sequence[int], bytes_per_value: float) -> float:
        """Return the most bytes that a prefill holds at once beside weights and embeddings.

        Layer l holds the keys and values so far, the rows that entered it, and beside them the
        larger of what its two halves need. Attention: another hidden row and two and a half of the
        queries' while positions rotate them, or three of the queries', or two hidden rows. The MLP:
        another hidden row, and of `MLP_ROWS` rows at a time two of the MLP's width, one hidden and
        two in float32.

        Parameters
        ----------
        lengths : sequence of int, length L
            Tokens entering each layer, text included.
        bytes_per_value : float
            Of hidden states, keys and values.
        """
        hidden, queries, width = self.hidden, self.heads * self.head_dim, bytes_per_value
        attention = max(2 * hidden + 2.5 * queries, hidden + 3 * queries, 3 * hidden) * width
        angles = 2 * self.head_dim * width

        def held(layer: int, length: int) -> float:
            slab = (2 * self.mlp_width(layer) + hidden) * width + 2 * hidden * 4
            mlp = length * 2 * hidden * width + min(length, MLP_ROWS) * slab
            cache = self.kv_bytes(lengths[: layer + 1], width)
            return cache + length * angles + max(length * attention, mlp)

        return max(held(layer, length) for layer, length in enumerate(lengths))


def _encoder_flops(
    hidden: int, weights: int, layers: int, windows: Iterable[int], full: int, full_layers: int
) -> int:
    """Operations of encoder layers: products over all positions, attention inside windows.

    `weights` are one layer's; `full_layers` of the layers attend over all `full` positions.
    """
    windows = tuple(windows)
    pairs = (layers - full_layers) * sum(n * n for n in windows) + full_layers * full * full
    return 2 * sum(windows) * layers * weights + 4 * hidden * pairs


@dataclass(frozen=True)
class VisionShape:
    """Sizes of the vision encoder.

    Attributes
    ----------
    layers, hidden, intermediate, heads : int
        Blocks and widths.
    patch, temporal_patch, merge : int
        Pixels of a patch's side, frames of a patch, patches of a token's side.
    window : int
        Pixels of an attention window's side; 0 if every block attends over the whole frame.
    full_attention : tuple of int
        Blocks that attend over the whole frame instead of windows.
    output : int
        Width of the embeddings it makes.
    gated : bool
        Whether its MLPs have three matrices (gated) or two.
    planes : int
        Embeddings it makes of each token, each with a merger of its own: the first enters the
        decoder, the others are added after its first layers.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    patch: int
    temporal_patch: int
    merge: int
    window: int
    full_attention: tuple[int, ...]
    output: int
    gated: bool = True
    planes: int = 1

    @property
    def _block_weights(self) -> int:
        matrices = 3 if self.gated else 2
        return self.hidden * (4 * self.hidden + matrices * self.intermediate)

    @property
    def _embedding_weights(self) -> int:
        return 3 * self.temporal_patch * self.patch**2 * self.hidden

    @property
    def _merger_weights(self) -> int:
        group = self.merge**2 * self.hidden
        return self.planes * group * (group + self.output)

    @property
    def parameters(self) -> int:
        """Weights of the matrices."""
        return self.layers * self._block_weights + self._merger_weights + self._embedding_weights

    def flops(self, grid: tuple[int, int, int]) -> float:
        """Return the operations over a grid of (t, h, w) patches."""
        steps, height, width = grid
        area = height * width
        side = self.window // self.patch or max(height, width, 1)
        windows = [
            min(side, height - top) * min(side, width - left)
            for top in range(0, height, side)
            for left in range(0, width, side)
        ]
        full = len(self.full_attention) if self.window else self.layers
        body = _encoder_flops(self.hidden, self._block_weights, self.layers, windows, area, full)
        merger = self._merger_weights // self.merge**2
        return steps * float(body + 2 * area * (self._embedding_weights + merger))

    def peak_bytes(
        self, grid: tuple[int, int, int] | None, bytes_per_value: float, *, gpu: bool = False
    ) -> float:
        """Return the most bytes of a batch: six hidden rows, three of the MLP's, and the patches.

        Parameters
        ----------
        grid : tuple of int or None
            (t, h, w) in patches.
        bytes_per_value : float
            Of hidden states.
        gpu : bool
            On a GPU batches are larger.
        """
        t, h, w = grid or (0, 0, 0)
        patches = min(t * h * w, max(VISION_BATCH_GPU if gpu else VISION_BATCH, h * w))
        pixels = _PIXEL_BYTES * 3 * self.temporal_patch * self.patch**2
        return patches * ((6 * self.hidden + 3 * self.intermediate) * bytes_per_value + pixels)


@dataclass(frozen=True)
class Projections:
    """Weights of an audio encoder outside its layers, where they are not Whisper's.

    Attributes
    ----------
    stem : int
        Weights of what makes the layers' positions of a spectrogram.
    stem_per_position : int
        Multiplications for each position: a convolution meets its weights once per output.
    head : int
        Weights of what makes tokens of the last layer's states, met once per token.
    """

    stem: int
    stem_per_position: int
    head: int


@dataclass(frozen=True)
class AudioShape:
    """Sizes of the audio encoder: Whisper's layers, over windows.

    Attributes
    ----------
    layers, hidden, intermediate, heads : int
        Layers and widths; the MLP has two matrices.
    mel_bins : int
    window : int
        Log-mel frames of an attention window.
    output : int
        Width of the embeddings it makes.
    frames_per_position : Fraction
        Log-mel frames of one position of the layers.
    positions_per_token : int
        Positions that are pooled into a token.
    projections : Projections or None
        None for Whisper's two convolutions of width 3, the second with stride 2, and one matrix to
        the output.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    mel_bins: int
    window: int
    output: int
    frames_per_position: Fraction = Fraction(2)
    positions_per_token: int = 2
    projections: Projections | None = None

    @property
    def _layer_weights(self) -> int:
        return self.hidden * (4 * self.hidden + 2 * self.intermediate)

    def _projections(self) -> Projections:
        if self.projections is not None:
            return self.projections
        taps = 3 * self.hidden
        # The first convolution runs at twice the rate of the second.
        return Projections(
            stem=taps * (self.mel_bins + self.hidden),
            stem_per_position=taps * (2 * self.mel_bins + self.hidden),
            head=self.hidden * self.output,
        )

    @property
    def parameters(self) -> int:
        """Weights of the matrices."""
        outside = self._projections()
        return self.layers * self._layer_weights + outside.stem + outside.head

    def flops(self, tokens: int) -> float:
        """Return the operations of making `tokens` tokens."""
        positions = self.positions_per_token * tokens
        span = max(1, round(self.window / self.frames_per_position))
        windows = [min(span, positions - at) for at in range(0, positions, span)]
        body = _encoder_flops(self.hidden, self._layer_weights, self.layers, windows, 0, 0)
        outside = self._projections()
        return float(body + 2 * (positions * outside.stem_per_position + tokens * outside.head))


@dataclass(frozen=True)
class Shapes:
    """Sizes of a whole model: decoder, vision encoder, audio encoder."""

    text: TextShape
    vision: VisionShape
    audio: AudioShape

    @property
    def parameters(self) -> int:
        """Weights of all matrices and tables."""
        return self.text.parameters + self.vision.parameters + self.audio.parameters

    def weight_bytes(self, bytes_per_weight: float, quantised: float | None = None) -> int:
        """Return the bytes of the weights in memory.

        Parameters
        ----------
        bytes_per_weight : float
            Of everything that is not quantised.
        quantised : float, optional
            Of the decoder's layers; `bytes_per_weight` if not given.
        """
        width = bytes_per_weight if quantised is None else quantised
        encoders = self.vision.parameters + self.audio.parameters
        text = self.text.linear_weights * width + self.text.table_weights * bytes_per_weight
        return round(text + encoders * bytes_per_weight)


def described(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain values for a report; parts of shapes at their default left out.

    So a report says of a model what is special about it, and no more.
    """
    found: dict[str, Any] = {}
    for item in fields(value):
        part = getattr(value, item.name)
        if isinstance(part, TextShape | VisionShape | AudioShape):
            found[item.name] = described(part)
        elif not _is_default(value, item.name):
            found[item.name] = _plain(part)
    return found


def _is_default(value: Any, name: str) -> bool:
    if not isinstance(value, TextShape | VisionShape | AudioShape):
        return False
    default = next(item.default for item in fields(value) if item.name == name)
    return default is not MISSING and getattr(value, name) == default


def _plain(part: Any) -> Any:
    if isinstance(part, Experts | Projections):
        return asdict(part)
    return float(part) if isinstance(part, Fraction) else part
