"""A minimal omni-modal model in plain torch, for the made-up family.

It takes the place of a library's model class, and differs from the built-in family wherever
families may differ: 10 audio tokens a second, patches of 8 × 8 pixels of one frame, fractional
positions, a second plane of video embeddings that is added after the first decoder layer, heads
that together are wider than the hidden state, an audio encoder without attention.

`MadeUpOmni.generate` is the reference: it recomputes the whole sequence for every token, without a
cache and head by head, and shares no code with the template and the adapter in `made_up_family`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class MadeUpConfig:
    """Sizes and special ids, as in config.json.

    Attributes
    ----------
    layers, hidden, intermediate, heads, kv_heads, head_dim, vocab : int
        Of the decoder.
    patch, merge, vision_hidden, vision_intermediate : int
        Of the vision encoder.
    mel_bins, mel_per_token : int
        Of the audio encoder.
    positions_per_second : float
    max_positions : int
    user, end, model, clip_start, clip_end, video, audio : int
        Ids: start of the user's turn, end of a turn, start of the answer, start and end of the
        clip, placeholders of video and audio tokens.
    dtype : str
        Dtype of the stored weights.
    """

    layers: int = 6
    hidden: int = 48
    intermediate: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    vocab: int = 272
    patch: int = 8
    merge: int = 2
    vision_hidden: int = 32
    vision_intermediate: int = 64
    mel_bins: int = 40
    mel_per_token: int = 10
    positions_per_second: float = 10.0
    max_positions: int = 4096
    user: int = 256
    end: int = 257
    model: int = 258
    clip_start: int = 259
    clip_end: int = 260
    video: int = 261
    audio: int = 262
    dtype: str = "float32"


class VisionEncoder(nn.Module):
    """Patches → a block with full attention in each frame → two planes of token embeddings."""

    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__()
        width, group = config.vision_hidden, config.merge**2 * config.vision_hidden
        self.group = config.merge**2
        self.patches = nn.Linear(3 * config.patch**2, width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.up = nn.Linear(width, config.vision_intermediate)
        self.down = nn.Linear(config.vision_intermediate, width)
        self.mergers = nn.ModuleList(
            nn.Sequential(nn.Linear(group, group), nn.GELU(), nn.Linear(group, config.hidden))
            for _ in range(2)
        )

    def forward(self, patches: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return both planes, (n, D) each, and the attention that each token received, (n,)."""
        early = self.patches(patches).view(grid[0], grid[1] * grid[2], -1)
        query, key, value = self.qkv(early).chunk(3, -1)
        weights = (query @ key.transpose(1, 2) * query.shape[-1] ** -0.5).float().softmax(-1)
        states = early + self.out(weights.to(value.dtype) @ value)
        states = states + self.down(F.gelu(self.up(states)))
        first, second = (
            merger(rows.reshape(-1, self.group * rows.shape[-1]))
            for merger, rows in zip(self.mergers, (states, early), strict=True)
        )
        return first, second, weights.sum(1).reshape(-1, self.group).mean(1)


class AudioEncoder(nn.Module):
    """Ten log-mel frames → one token; no attention between tokens, so none is reported."""

    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__()
        self.frames = config.mel_per_token
        self.one = nn.Linear(config.mel_bins * config.mel_per_token, config.hidden)
        self.two = nn.Linear(config.hidden, config.hidden)

    def forward(self, mel: Tensor) -> Tensor:
        """Return the embeddings of whole tokens, (F // 10, D), of mel (mel_bins, F)."""
        count = mel.shape[1] // self.frames
        rows = mel[:, : count * self.frames].T.reshape(count, self.frames * mel.shape[0])
        return self.two(F.gelu(self.one(rows)))


class RMSNorm(nn.Module):
    """Root-mean-square norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, rows: Tensor) -> Tensor:
        wide = rows.float()
        return self.weight * (wide * (wide.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()).to(rows)


class DecoderLayer(nn.Module):
    """The weights of one decoder layer, which reference and adapter run independently."""

    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__()
        hidden, width = config.hidden, config.head_dim
        self.norm1, self.norm2 = RMSNorm(hidden), RMSNorm(hidden)
        self.q = nn.Linear(hidden, config.heads * width, bias=False)
        self.k = nn.Linear(hidden, config.kv_heads * width, bias=False)
        self.v = nn.Linear(hidden, config.kv_heads * width, bias=False)
        self.o = nn.Linear(config.heads * width, hidden, bias=False)
        self.gate = nn.Linear(hidden, config.intermediate, bias=False)
        self.up = nn.Linear(hidden, config.intermediate, bias=False)
        self.down = nn.Linear(config.intermediate, hidden, bias=False)

    def mlp(self, rows: Tensor) -> Tensor:
        """Return the output of the gated MLP for normed rows."""
        return self.down(F.silu(self.gate(rows)) * self.up(rows))


def angles(positions: Tensor, head_dim: int) -> Tensor:
    """Return rotary angles, (n, head_dim), of positions (3, n).

    Half of the frequencies belong to time, a quarter to the row, a quarter to the column.
    """
    half = head_dim // 2
    frequencies = 1000.0 ** (-torch.arange(half, device=positions.device) / half)
    axis = torch.arange(half, device=positions.device) * 4 // half
    row = (axis - 1).clamp_min(0)
    turned = positions.float()[row].T * frequencies
    return torch.cat([turned, turned], -1)


class MadeUpOmni(nn.Module):
    """The whole model.

    Parameters
    ----------
    config : MadeUpConfig
    """

    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__()
        self.config = config
        self.vision, self.audio = VisionEncoder(config), AudioEncoder(config)
        self.embed = nn.Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden)
        self.head = nn.Linear(config.hidden, config.vocab, bias=False)

    def layer(self, index: int) -> DecoderLayer:
        """Return a decoder layer."""
        layer = self.layers[index]
        assert isinstance(layer, DecoderLayer)
        return layer

    @torch.inference_mode()
    def generate(
        self,
        ids: Sequence[int],
        *,
        patches: Tensor | None = None,
        grid: tuple[int, int, int] | None = None,
        second_per_grid: float | None = None,
        mel: Tensor | None = None,
        tokens: int = 20,
    ) -> list[int]:
        """Answer greedily without a cache: the reference that tests compare the engine with.

        Parameters
        ----------
        ids : sequence of int
            The prompt, with placeholders for video and audio tokens.
        patches, grid, second_per_grid, mel
            As in `omnidrop.engine.encode.Features`.
        tokens : int
            Maximum number of tokens.

        Returns
        -------
        list of int
            Token ids up to the end of the turn, which is excluded.
        """
        planes = self.vision(patches, grid)[:2] if patches is not None and grid else None
        sounds = self.audio(mel) if mel is not None else None
        sequence = list(ids)
        answer: list[int] = []
        while len(answer) < tokens:
            best = int(self._logits(sequence, planes, sounds, grid, second_per_grid).argmax())
            if best == self.config.end:
                break
            answer.append(best)
            sequence.append(best)
        return answer

    def _logits(
        self,
        ids: list[int],
        planes: tuple[Tensor, Tensor] | None,
        sounds: Tensor | None,
        grid: tuple[int, int, int] | None,
        second_per_grid: float | None,
    ) -> Tensor:
        config, given = self.config, torch.tensor(ids)
        rows = self.embed(given)
        later = torch.zeros_like(rows)
        if planes is not None:
            rows[given == config.video], later[given == config.video] = planes
        if sounds is not None:
            rows[given == config.audio] = sounds
        turned = angles(reference_positions(config, ids, grid, second_per_grid), config.head_dim)
        for number in range(config.layers):
            layer = self.layer(number)
            rows = rows + self._attention(layer, layer.norm1(rows), turned)
            rows = rows + layer.mlp(layer.norm2(rows))
            if number == 0:
                rows = rows + later
        return self.head(self.norm(rows[-1]))

    def _attention(self, layer: DecoderLayer, rows: Tensor, turned: Tensor) -> Tensor:
        """Causal attention, head by head."""
        later = torch.ones(len(rows), len(rows), dtype=torch.bool).triu(1)
        width, shared = self.config.head_dim, self.config.heads // self.config.kv_heads
        queries, keys, values = layer.q(rows), layer.k(rows), layer.v(rows)
        outs = []
        for head in range(self.config.heads):
            query, key, value = (
                side[:, at * width : (at + 1) * width]
                for side, at in (
                    (queries, head),
                    (keys, head // shared),
                    (values, head // shared),
                )
            )
            query, key = (_turn(states, turned) for states in (query, key))
            scores = (query @ key.T * width**-0.5).masked_fill(later, float("-inf"))
            outs.append(scores.softmax(-1) @ value)
        return layer.o(torch.cat(outs, -1))


def _turn(states: Tensor, turned: Tensor) -> Tensor:
    one, two = states.chunk(2, -1)
    return states * turned.cos() + torch.cat([-two, one], -1) * turned.sin()


def reference_positions(
    config: MadeUpConfig,
    ids: Sequence[int],
    grid: tuple[int, int, int] | None,
    second_per_grid: float | None,
) -> Tensor:
    """Return the positions of a sequence, (3, n) float32, counted token by token."""
    found: list[tuple[float, float, float]] = []
    columns = grid[2] // config.merge if grid else 1
    frame = grid[1] // config.merge * columns if grid else 1
    n_video = n_audio = 0
    first = after = 0.0  # of the clip, and of the next token that is not in it
    for token in ids:
        if token == config.video:
            step, cell = divmod(n_video, frame)
            time = step * (second_per_grid or 0.0) * config.positions_per_second
            found.append((first + time, first + cell // columns, first + cell % columns))
            n_video += 1
        elif token == config.audio:
            found.append((first + n_audio,) * 3)
            n_audio += 1
        else:
            found.append((after,) * 3)
        after = max(after, *(at + 1 for at in found[-1]))
        if token == config.clip_start:
            first = after
    return torch.tensor(found, dtype=torch.float32).T
