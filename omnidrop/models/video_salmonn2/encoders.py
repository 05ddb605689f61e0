"""The audio encoder of video-SALMONN 2+: Whisper's encoder, then a Q-Former over short windows.

Plain modules whose weights have the names of the published checkpoint, read from safetensors: no
code of a checkpoint runs. Audio is encoded in pieces of equal length (30 s). Whisper's layers
(Radford et al. 2022) attend over a whole piece; then the Q-Former (Li et al. 2023, "BLIP-2"), a
BERT with cross-attention, makes one token of every half second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnidrop.models.encoding import attention_received, batch_size
from omnidrop.models.folder_checks import refuse_missing, refuse_other_shapes
from omnidrop.models.locations import shards, weights
from omnidrop.models.mapped import keep_mapped
from omnidrop.models.uploading import Upload
from omnidrop.models.video_salmonn2.sizes import AudioConfig

#: Prefix of the encoder's weights in a checkpoint.
PREFIX = "audio."
#: A buffer that is stored with the weights and not used.
UNUSED = "audio.qformer.bert.embeddings.position_ids"

#: Pieces (30 s each) in a batch, at most.
BATCH = 2
#: The same on a GPU.
BATCH_GPU = 16

#: Decades of power below the loudest point that a log-mel spectrogram keeps, as normalised values.
_FLOOR = 8.0 / 4.0
#: Normalised log-mel of digital silence: log10 of 1e-10.
_SILENCE = (-10.0 + 4.0) / 4.0


class Attention(nn.Module):
    """Multi-head attention of Whisper; only the keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scaling = heads, (width // heads) ** -0.5
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, rows: Tensor, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attend, (b, n, width) → (b, n, width), and the attention that each row received."""
        query, key, value = (
            projection(rows).unflatten(2, (self.heads, -1))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
        received = attention_received(query, key, self.scaling) if weights else None
        return self.out_proj(out.transpose(1, 2).flatten(2)), received


class Layer(nn.Module):
    """A layer of Whisper's encoder: norms come first."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        width = config.hidden
        self.self_attn = Attention(width, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.inner)
        self.fc2 = nn.Linear(config.inner, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return the rows after the layer, and the attention that each received."""
        out, received = self.self_attn(self.self_attn_layer_norm(rows), weights)
        rows = rows + out
        rows = rows + self.fc2(F.gelu(self.fc1(self.final_layer_norm(rows))))
        if rows.dtype == torch.float16:
            limit = torch.finfo(rows.dtype).max - 1000
            rows = rows.clamp(-limit, limit)
        return rows, received


class Projections(nn.Module):
    """Queries, keys and values of BERT's attention; keys may come from states of another width."""

    def __init__(self, width: int, source: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source, width)
        self.value = nn.Linear(source, width)

    def forward(self, rows: Tensor, source: Tensor) -> Tensor:
        """Attend from `rows`, (b, n, width), to `source`, (b, s, source)."""
        query, key, value = (
            projection(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection, x in (
                (self.query, rows),
                (self.key, source),
                (self.value, source),
            )
        )
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Output(nn.Module):
    """A projection that is added to the rows before the norm, as in BERT."""

    def __init__(self, source: int, width: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(source, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, states: Tensor, rows: Tensor) -> Tensor:
        """Return the norm of the rows plus the projected states."""
        return self.LayerNorm(self.dense(states) + rows)


class BertAttention(nn.Module):
    """Attention of BERT with its output."""

    def __init__(self, width: int, source: int, heads: int, eps: float) -> None:
        super().__init__()
        self.self = Projections(width, source, heads)
        self.output = Output(width, width, eps)

    def forward(self, rows: Tensor, source: Tensor) -> Tensor:
        """Return the rows after attention to `source`."""
        return self.output(self.self(rows, source), rows)


class Intermediate(nn.Module):
    """The first half of BERT's MLP."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inner)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the wide rows."""
        return F.gelu(self.dense(rows))


class FormerLayer(nn.Module):
    """A layer of the Q-Former: self-attention, cross-attention to a window, MLP."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        width, heads, eps = config.q_hidden, config.q_heads, config.q_eps
        self.attention = BertAttention(width, width, heads, eps)
        self.crossattention = BertAttention(width, config.hidden, heads, eps)
        self.intermediate_query = Intermediate(width, config.q_inner)
        self.output_query = Output(config.q_inner, width, eps)

    def forward(self, rows: Tensor, window: Tensor) -> Tensor:
        """Return the queries, (b, q, q_hidden), after the layer; `window` is (b, n, hidden)."""
        rows = self.attention(rows, rows)
        rows = self.crossattention(rows, window)
        return self.output_query(self.intermediate_query(rows), rows)


class FormerLayers(nn.Module):
    """The layers of the Q-Former."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(FormerLayer(config) for _ in range(config.q_layers))

    def forward(self, rows: Tensor, windows: Tensor) -> Tensor:
        """Return the queries after all layers."""
        for layer in self.layer:
            rows = layer(rows, windows)
        return rows


class Embeddings(nn.Module):
    """BERT's norm of what enters; queries have no word and no position embeddings."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(config.q_hidden, eps=config.q_eps)

    def forward(self, queries: Tensor) -> Tensor:
        """Return the normalised queries."""
        return self.LayerNorm(queries)


class Bert(nn.Module):
    """The Q-Former: queries that read windows of the audio."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.embeddings, self.encoder = Embeddings(config), FormerLayers(config)

    def forward(self, queries: Tensor, windows: Tensor) -> Tensor:
        """Return a state per query and window.

        Parameters
        ----------
        queries : Tensor, (1, q, q_hidden)
        windows : Tensor, (b, n, hidden)

        Returns
        -------
        Tensor, (b, q, q_hidden)
        """
        return self.encoder(self.embeddings(queries).expand(len(windows), -1, -1), windows)


class Former(nn.Module):
    """The place of the Q-Former in a checkpoint, which names it a BERT."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.bert = Bert(config)

    def forward(self, queries: Tensor, windows: Tensor) -> Tensor:
        """Return a state per query and window; see `Bert`."""
        return self.bert(queries, windows)


class AudioEncoder(nn.Module):
    """The whole encoder of pieces of audio.

    Parameters
    ----------
    config : AudioConfig
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden
        self.conv1 = nn.Conv1d(config.mel_bins, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.positions, width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.layer_norm = nn.LayerNorm(width)
        self.qformer = Former(config)
        self.q_tokens = nn.Parameter(torch.zeros(1, config.queries, config.q_hidden))
        self.audio_proj = nn.Linear(config.q_hidden, config.output)

    def states(self, mel: Tensor, attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Run Whisper's encoder.

        Parameters
        ----------
        mel : Tensor, (b, mel_bins, piece_frames)
        attention : bool
            Also return the attention that each position received in the last layer.

        Returns
        -------
        Tensor, (b, positions, hidden)
        Tensor or None, (b, positions) float32
        """
        rows = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        rows = rows + self.embed_positions.weight
        received = None
        for number, layer in enumerate(self.layers):
            rows, received = layer(rows, attention and number == len(self.layers) - 1)
        return self.layer_norm(rows), received

    def forward(self, mel: Tensor, attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Embed pieces.

        Parameters
        ----------
        mel : Tensor, (b, mel_bins, piece_frames)
        attention : bool
            Also return the attention that each token received: the mean over its window.

        Returns
        -------
        Tensor, (b · piece_tokens, output)
        Tensor or None, (b · piece_tokens,) float32
        """
        config = self.config
        states, received = self.states(mel, attention)
        windows = states.unfold(1, config.window, config.stride)  # (b, windows, hidden, window)
        read = self.qformer(self.q_tokens, windows.flatten(0, 1).transpose(1, 2))
        tokens = self.audio_proj(read).flatten(0, 1)
        if received is None:
            return tokens, None
        shares = received.unfold(1, config.window, config.stride).mean(-1).flatten()
        return tokens, shares.repeat_interleave(config.queries)


class AudioTower:
    """Encodes a log-mel spectrogram of any length, in batches of pieces.

    Parameters
    ----------
    module : AudioEncoder
    """

    def __init__(self, module: AudioEncoder) -> None:
        self._module = module
        weight = module.conv1.weight
        self._upload = Upload(weight.device, weight.dtype)

    @torch.inference_mode()
    def __call__(self, mel: Tensor, *, attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Embed log-mel; see `Adapter.encode_audio`. An incomplete piece is padded with silence."""
        module, config = self._module, self._module.config
        if mel.ndim != 2 or mel.shape[0] != config.mel_bins:
            raise ValueError(f"mel is {tuple(mel.shape)}, not ({config.mel_bins}, F)")
        pieces = padded(mel, config.piece_frames).unflatten(1, (-1, config.piece_frames))
        step = self._step()
        found = [
            module(self._upload.send(pieces[:, first : first + step].transpose(0, 1)), attention)
            for first in range(0, pieces.shape[1], step)
        ]
        if not found:
            weight = module.audio_proj.weight
            return weight.new_empty((0, len(weight))), (
                torch.empty(0, device=weight.device) if attention else None
            )
        received = [part for _, part in found if part is not None]
        return torch.cat([tokens for tokens, _ in found]), torch.cat(received) if received else None

    def _step(self) -> int:
        """Return how many pieces are in a batch."""
        config = self._module.config
        wide = 8 * config.hidden + 2 * config.inner
        room = config.positions * wide * self._upload.dtype.itemsize
        return batch_size(self._upload.device, BATCH, BATCH_GPU, room)


def padded(mel: Tensor, frames: int) -> Tensor:
    """Pad a log-mel spectrogram with silence to whole pieces.

    Parameters
    ----------
    mel : Tensor, (mel_bins, F) float32
    frames : int
        Frames of a piece.

    Returns
    -------
    Tensor, (mel_bins, F') float32
        F' is the next multiple of `frames`. Silence has the value that Whisper's normalisation
        gives it next to the rest of its piece.
    """
    rest = mel.shape[1] % frames
    if not rest:
        return mel
    loudest = float(mel[:, -rest:].max())
    return F.pad(mel, (0, frames - rest), value=max(loudest - _FLOOR, _SILENCE))


def check_audio(folder: Path, config: AudioConfig) -> None:
    """Check that the files hold every weight of the encoder, in its shape; no weight is read.

    Raises
    ------
    ModelError
        If a weight is missing or has another shape; names it.
    """
    found = {weight.name: weight.shape for weight in weights(folder)}
    wanted = {
        PREFIX + name: tuple(weight.shape) for name, weight in _empty(config).state_dict().items()
    }
    refuse_missing(wanted.keys() - found.keys(), folder)
    refuse_other_shapes(
        [(name, found[name], shape) for name, shape in wanted.items() if found[name] != shape],
        folder,
    )


def load_audio(
    folder: Path,
    config: AudioConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    mapped: bool = False,
) -> AudioEncoder:
    """Load the encoder's weights from a checkpoint.

    Parameters
    ----------
    folder : Path
    config : AudioConfig
    device : torch.device
    dtype : torch.dtype
    mapped : bool
        Leave 16-bit weights in the files, and widen them when they are used.

    Raises
    ------
    ModelError
        If a weight is missing or has another shape; names it.
    """
    check_audio(folder, config)
    module = _empty(config)
    stored = _stored(folder, module.state_dict(), device, None if mapped else dtype)
    module.load_state_dict(stored, assign=True)
    if mapped:
        keep_mapped(module, dtype)
    return module.eval().requires_grad_(False)


def _empty(config: AudioConfig) -> AudioEncoder:
    """Return the encoder without memory for its weights."""
    with torch.device("meta"):
        return AudioEncoder(config)


def _stored(
    folder: Path, wanted: dict[str, Any], device: torch.device, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Read the encoder's tensors, one after the other; without a dtype they stay mapped."""
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    for file in shards(folder):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                own = name.removeprefix(PREFIX)
                if name.startswith(PREFIX) and own in wanted:
                    value = tensors.get_tensor(name)
                    found[own] = value if dtype is None else value.to(device, dtype)
    return found
