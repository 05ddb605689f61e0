"""Sizes of a model's decoder and encoders; FLOPs and bytes for given numbers of tokens.

A multiply and an add count as two operations. Counted are the matrix products (projections, MLPs,
attention scores and sums, `lm_head`); norms, rotary embedding, softmax and activations are under
one percent and left out. The masked half of causal attention is not counted, so a kernel that
computes it anyway needs more operations.

A prefill is counted in two ways. To compare methods, every layer is counted whole, as in papers. To
judge a measured time, the last layer is counted as this engine runs it: all keys and values, and
one row of the rest (`as_run`).

Prefill is bound by arithmetic and decoding by memory bandwidth: FLOPs predict the time of the
first, bytes (weights once per token, and the KV cache) that of the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

#: Rows of a chunk in a norm or an MLP of the decoder, at most: bounds activation memory.
MLP_ROWS = 2048

#: The same on a GPU, where every chunk costs launches; attention over long prompts needs as much.
MLP_ROWS_GPU = 4096

#: Patches in a batch of the vision encoder, at most: bounds its activation memory for any clip.
VISION_BATCH = 8192

#: The same on a GPU, which needs more rows to reach full speed.
VISION_BATCH_GPU = 16384

#: Share of a counted peak that kernels' buffers and the allocator's waste take on top of it, at
#: most: `benchmarks/prefill_memory.py`.
BUFFERS = 0.1

#: Bytes per value of a patch before the vision encoder (float32).
_PIXEL_BYTES = 4


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in place of the dense MLP.

    Attributes
    ----------
    count : int
        Routed experts per layer.
    active : int
        Number of routed experts per token.
    width : int
        Width of one expert's gated MLP.
    shared : int
        Width of the shared expert, which every token uses; 0 for none.
    dense_layers : int
        Number of first layers with a dense MLP of `TextShape.intermediate`.
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
        """Return the MLP width that one token uses in a layer (-1: the last)."""
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
            Count the weights that one token uses; otherwise all experts, as in memory.
        """
        layer %= max(1, self.layers)
        width, router = self.mlp_width(layer), 0
        if self.experts is not None and not self._dense(layer):
            router = self.hidden * self.experts.count
            if not active:
                width = self.experts.count * self.experts.width + self.experts.shared
        return self.attention_weights + self.hidden * 3 * width + router

    @property
    def largest_matrix(self) -> int:
        """Weights of the largest matrix of a layer, without experts and tables."""
        widths = [self.heads * self.head_dim]
        if any(self._dense(layer) for layer in range(self.layers)):
            widths.append(self.intermediate)
        if self.experts is not None:
            widths.append(self.experts.shared)
        return self.hidden * max(widths)

    @property
    def table_weights(self) -> int:
        """Weights of the embedding table and of `lm_head`."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def linear_weights(self) -> int:
        """Weights of all layers' matrices, with all experts; 4-bit and 8-bit quantise these."""
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
            For the layers' matrices: 2 for bfloat16, about 0.53 for 4-bit NF4 with its scales.
        table_bytes : float, optional
            For the tables, which are never quantised; by default 2, or `bytes_per_weight` if that
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

        Token i attends to i + 1 tokens, so scores and sums each take
        `2 · heads · head_dim · tokens · (tokens + 1) / 2`.
        """
        attention = 2 * self.heads * self.head_dim * tokens * (tokens + 1)
        return 2 * tokens * self.layer_weights(layer) + attention

    def last_layer_flops(self, tokens: int) -> int:
        """Return the operations of the last layer if only its last row is computed.

        Keys and values are computed for all tokens, because decoding needs them.
        """
        both = 2 * self.kv_heads * self.head_dim
        row = self.layer_weights() - self.hidden * both
        return 2 * (tokens * self.hidden * both + row + 2 * self.heads * self.head_dim * tokens)

    def prefill_flops(
        self, text_tokens: int, counts: Sequence[int], *, as_run: bool = False
    ) -> float:
        """Return the operations of a prefill, given the tokens entering each layer.

        Parameters
        ----------
        text_tokens : int
            Tokens that enter every layer: text and markers.
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

    def two_way_flops(self, tokens: int, layers: int) -> float:
        """Return the operations of the first layers over `tokens` tokens without a causal mask.

        Parameters
        ----------
        tokens : int
            Each attends to all of them.
        layers : int
            Number of layers.
        """
        masked_half = 2 * self.heads * self.head_dim * tokens * (tokens - 1)
        return float(sum(self.layer_flops(tokens, layer) + masked_half for layer in range(layers)))

    def two_way_weight_bytes(self, layers: int) -> int:
        """Return the bytes of such layers' weights in float32, with a matrix that scores rows."""
        if not layers:
            return 0
        matrices = sum(self.layer_weights(layer, active=False) for layer in range(layers))
        return 4 * (matrices + self.hidden**2)

    def two_way_peak_bytes(self, tokens: int, layers: int) -> float:
        """Return the peak bytes of the first layers run that way in float32, without weights.

        Per row: what enters and leaves a layer and one more hidden row, the angles, and the largest
        of four rows of the queries' width (attention), two of it and four of the keys' (rotary
        embedding), and three of the MLP's.

        Parameters
        ----------
        tokens : int
        layers : int
            0 needs nothing.
        """
        if not layers:
            return 0.0
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        inner = max(4 * queries, 2 * queries + 4 * keys, 3 * self.mlp_width(0))
        return 4.0 * tokens * (3 * self.hidden + 2 * self.head_dim + inner)

    def decode_flops(self, lengths: Sequence[int], steps: int) -> float:
        """Return the operations of `steps` decoding steps.

        The prefill yields the first answer token, so n answer tokens take n - 1 steps.

        Parameters
        ----------
        lengths : sequence of int, length L
            Tokens in each layer's cache when decoding starts.
        steps : int
            Number of decode steps; step s attends to `length + s` tokens (s from 1).
        """
        pairs = steps * sum(lengths) + len(lengths) * steps * (steps + 1) // 2
        attention = 4 * self.heads * self.head_dim * pairs
        weights = sum(self.layer_weights(layer) for layer in range(len(lengths)))
        return float(steps * (2 * weights + self.head_flops) + attention)

    def peak_bytes(
        self, lengths: Sequence[int], bytes_per_value: float, *, gpu: bool = False
    ) -> float:
        """Return the peak bytes of a prefill, without weights and embeddings.

        Layer l holds the keys and values so far, the rows that entered it, and the larger of what
        attention and MLP need. Per row, attention needs one more hidden row and two and a half rows
        of the queries' width during rotary embedding, or three of the queries' width, or two hidden
        rows. The MLP needs one more hidden row, and for each of up to `MLP_ROWS` rows two of the
        MLP's width, one hidden and two hidden in float32; with experts also three hidden rows and
        one of an expert's width for each active expert.

        Parameters
        ----------
        lengths : sequence of int, length L
            Tokens entering each layer, text included.
        bytes_per_value : float
            For hidden states, keys and values.
        gpu : bool
            On a GPU, chunks of the MLP have `MLP_ROWS_GPU` rows.
        """
        block = MLP_ROWS_GPU if gpu else MLP_ROWS
        hidden, queries, width = self.hidden, self.heads * self.head_dim, bytes_per_value
        attention = max(2 * hidden + 2.5 * queries, hidden + 3 * queries, 3 * hidden) * width
        angles = 2 * self.head_dim * width

        def held(layer: int, length: int) -> float:
            slab = (2 * self.mlp_width(layer) + hidden) * width + 2 * hidden * 4
            if self.experts is not None and not self._dense(layer):
                slab += self.experts.active * (3 * hidden + self.experts.width) * width
            mlp = length * 2 * hidden * width + min(length, block) * slab
            cache = self.kv_bytes(lengths[: layer + 1], width)
            return cache + length * angles + max(length * attention, mlp)

        return max(held(layer, length) for layer, length in enumerate(lengths))


def _encoder_flops(
    hidden: int, weights: int, layers: int, windows: Iterable[int], full: int, full_layers: int
) -> int:
    """Return the operations of encoder layers with windowed attention.

    `weights` are one layer's; `full_layers` layers attend to all `full` positions.
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
        Pixels along a patch's side, frames of a patch, patches along a token's side.
    window : int
        Pixels along an attention window's side; 0 if every block attends to the whole frame.
    full_attention : tuple of int
        Blocks that attend to the whole frame instead of windows.
    output : int
        Width of the output embeddings.
    gated : bool
        Whether its MLPs have three matrices (gated) or two.
    planes : int
        Output embeddings per token, each with its own merger: the first enters the decoder, the
        others are added after its first layers.
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
        """Return the operations for a grid of (t, h, w) patches."""
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
        """Return the peak bytes of a batch.

        Per patch: six hidden rows, three rows of the MLP's width, and the patch itself.

        Parameters
        ----------
        grid : tuple of int or None
            (t, h, w) in patches.
        bytes_per_value : float
            For hidden states.
        gpu : bool
            Use the larger batch of a GPU.
        """
        t, h, w = grid or (0, 0, 0)
        patches = min(t * h * w, max(VISION_BATCH_GPU if gpu else VISION_BATCH, h * w))
        pixels = _PIXEL_BYTES * 3 * self.temporal_patch * self.patch**2
        return patches * ((6 * self.hidden + 3 * self.intermediate) * bytes_per_value + pixels)


@dataclass(frozen=True)
class Projections:
    """Weights of an audio encoder outside its layers, if they differ from Whisper's.

    Attributes
    ----------
    stem : int
        Weights before the layers (spectrogram to positions).
    stem_per_position : int
        Multiplications of the stem per position: a convolution uses its weights once per output.
    head : int
        Weights after the layers (states to tokens), used once per token.
    """

    stem: int
    stem_per_position: int
    head: int


@dataclass(frozen=True)
class AudioShape:
    """Sizes of the audio encoder: Whisper's layers with windowed attention.

    Attributes
    ----------
    layers, hidden, intermediate, heads : int
        Layers and widths; the MLP has two matrices.
    mel_bins : int
    window : int
        Log-mel frames of an attention window.
    output : int
        Width of the output embeddings.
    frames_per_position : Fraction
        Log-mel frames per position of the layers.
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
        # The first convolution has twice as many outputs as the second.
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
        """Return the operations to compute `tokens` tokens."""
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

    @property
    def largest_matrix(self) -> int:
        """Weights of the largest matrix, without experts and tables."""
        group = self.vision.merge**2 * self.vision.hidden
        return max(
            self.text.largest_matrix,
            self.vision.hidden * self.vision.intermediate,
            group * max(group, self.vision.output),
            self.audio.hidden * self.audio.intermediate,
        )

    def weight_bytes(
        self,
        bytes_per_weight: float,
        quantised: float | None = None,
        tables: float | None = None,
    ) -> int:
        """Return the bytes of the weights in memory.

        Parameters
        ----------
        bytes_per_weight : float
            For everything that is not quantised.
        quantised : float, optional
            For the decoder's layers; default `bytes_per_weight`.
        tables : float, optional
            For the table of embeddings and the output layer; default `bytes_per_weight`.
        """
        width = bytes_per_weight if quantised is None else quantised
        encoders = self.vision.parameters + self.audio.parameters
        table = bytes_per_weight if tables is None else tables
        text = self.text.linear_weights * width + self.text.table_weights * table
        return round(text + encoders * bytes_per_weight)

    def peak_bytes(
        self,
        lengths: Sequence[int],
        bytes_per_value: float,
        *,
        rows: int,
        video: int,
        grid: tuple[int, int, int] | None,
        gpu: bool = False,
        own_layers: int = 0,
    ) -> int:
        """Return the most bytes held at once beside the weights: embeddings, encoder or prefill.

        Kernels' buffers and the allocator's waste come on top: `with_buffers`.

        Parameters
        ----------
        lengths : sequence of int, length L
            Tokens entering each layer, text included; empty for the encoders alone.
        bytes_per_value : float
            For hidden states, keys and values.
        rows, video : int
            Tokens of the whole prompt, and those of video among them.
        grid : tuple of int or None
            (t, h, w) in patches; None without video, or if it is encoded already.
        gpu : bool
            Batches are larger on a GPU.
        own_layers : int
            Layers of a network of the method's own, whose weights are held, too, and which reads
            the whole prompt before the decoder does (`Method.own_layers`).
        """
        # Every plane of the video embeddings is held until it has been added.
        held = (rows + (self.vision.planes - 1) * video) * self.text.hidden * bytes_per_value
        encoder = self.vision.peak_bytes(grid, bytes_per_value, gpu=gpu)
        prefill = self.text.peak_bytes(lengths, bytes_per_value, gpu=gpu) if lengths else 0.0
        own = self.text.two_way_peak_bytes(rows, own_layers)
        weights = self.text.two_way_weight_bytes(own_layers)
        return round(held + weights + max(encoder, own, prefill))


def with_buffers(count: float) -> int:
    """Return a counted peak with what comes on top of it (`BUFFERS`)."""
    return round(count * (1 + BUFFERS))
