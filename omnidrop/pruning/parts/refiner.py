"""The trained refiner of EchoingPixels: copies of the decoder's first layers that look both ways.

The refiner runs over the whole prompt before the decoder. Its layers are shaped like the decoder's,
but every row attends to every other one, later ones included. A small network then scores the
refined audio and video. What is kept enters the decoder refined, and so does the text.

Refiner and decoder are trained together for one model. The refiner is kept as two files in the
folder `refiner` of that model's: `refiner.safetensors`, and `refiner.json` with its settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from omnidrop.pruning.method import Backbone
from omnidrop.pruning.parts.trained import Kind
from omnidrop.rotary import angles, frequencies, turned
from omnidrop.transfers import to_device

#: Layers of a refiner, and the share of audio and video tokens that it is trained to keep
#: (published).
LAYERS, SHARE = 4, 0.2


@dataclass(frozen=True)
class Shape:
    """Sizes of a refiner.

    Attributes
    ----------
    width : int
        Of the model's embeddings, D.
    inner : int
        Of the gated networks between the attentions.
    heads, kv_heads, head_dim : int
        Of the attention; `kv_heads` divide `heads`.
    layers : int
    sections : tuple of int
        Pairs of a head's channels that turn by time, row, column, and by time again; see
        `omnidrop.rotary`.
    theta : float
        Base of the rotary frequencies.
    eps : float
        Of the norms.
    """

    width: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    sections: tuple[int, ...]
    layers: int = LAYERS
    theta: float = 1e6
    eps: float = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "sections", tuple(self.sections))
        counts = (self.width, self.inner, self.heads, self.kv_heads, self.head_dim, self.layers)
        whole = (*counts, *self.sections)
        if any(type(size) is not int or size < 1 for size in whole):
            raise ValueError(f"sizes must be whole numbers above 0, not {whole}")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} keys")
        if 2 * sum(self.sections) != self.head_dim:
            raise ValueError(f"sections {self.sections} are not half of a head of {self.head_dim}")


class _Attention(nn.Module):
    """Attention of grouped queries, without a causal mask."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head_dim, self.groups = shape.head_dim, shape.heads // shape.kv_heads
        wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.width, wide)
        self.k_proj = nn.Linear(shape.width, narrow)
        self.v_proj = nn.Linear(shape.width, narrow)
        self.o_proj = nn.Linear(wide, shape.width, bias=False)

    def forward(
        self, rows: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, seen: torch.Tensor | None
    ) -> torch.Tensor:
        q, k, v = (
            part(rows).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = turned(q, cos, sin), turned(k, cos, sin)
        k, v = (part.repeat_interleave(self.groups, 1) for part in (k, v))
        mask = None if seen is None else seen[:, None, None]
        if self.training:
            # On a CPU the backward pass of plain products is several times faster than that of the
            # fused kernel, which is for long prompts.
            scores = q @ k.transpose(-1, -2) / self.head_dim**0.5
            if mask is not None:
                scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
            found = scores.softmax(-1) @ v
        else:
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: torch.Tensor = self.o_proj(found.transpose(1, 2).flatten(2))
        return out


class _Gated(nn.Module):
    """Two linear layers, one of them gated by a third."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.inner, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.inner, bias=False)
        self.down_proj = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(F.silu(self.gate_proj(rows)) * self.up_proj(rows))
        return out


class _Layer(nn.Module):
    """A layer of the refiner; its weights have the names of the decoder layer it is copied from."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.width, eps=shape.eps)
        self.self_attn = _Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=shape.eps)
        self.mlp = _Gated(shape)

    def forward(
        self, rows: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, seen: torch.Tensor | None
    ) -> torch.Tensor:
        rows = rows + self.self_attn(self.input_layernorm(rows), cos, sin, seen)
        out: torch.Tensor = rows + self.mlp(self.post_attention_layernorm(rows))
        return out


class Refiner(nn.Module):
    """A prompt's embeddings → its refined states, and a score for each of those.

    Layers of RMSNorm, attention that looks both ways, RMSNorm and a gated network; queries, keys
    and values have biases. The score is RMSNorm, a linear layer, SiLU and a linear layer to one
    number (public code).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.score_norm = nn.RMSNorm(shape.width, eps=shape.eps)
        self.score_head = nn.Sequential(
            nn.Linear(shape.width, shape.width), nn.SiLU(), nn.Linear(shape.width, 1)
        )

    def forward(
        self, embeds: torch.Tensor, positions: torch.Tensor, seen: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Refine prompts.

        Parameters
        ----------
        embeds : Tensor, (b, n, D) float32
            Embeddings of every row, text included.
        positions : Tensor, (3, b, n) int64 or float32
        seen : Tensor, (b, n) bool, optional
            Rows that the others attend to; by default all. In training neither padding nor the
            answer is.

        Returns
        -------
        Tensor, (b, n, D) float32
        """
        turning = to_device(frequencies(self.shape.head_dim, self.shape.theta), embeds.device)
        cos, sin = (part[:, None] for part in angles(positions, turning, self.shape.sections))
        rows = embeds
        for layer in self.layers:
            rows = layer(rows, cos, sin, seen)
        return rows

    def score(self, rows: torch.Tensor) -> torch.Tensor:
        """Score refined rows, (..., D) → (...)."""
        out: torch.Tensor = self.score_head(self.score_norm(rows)).squeeze(-1)
        return out

    def copy_layers(self, layers: nn.ModuleList) -> None:
        """Begin with the weights of a decoder's first layers (published).

        Parameters
        ----------
        layers : ModuleList
            At least as many as this refiner has, with weights of its layers' names and shapes.
        """
        for own, other in zip(self.layers, layers, strict=False):
            own.load_state_dict(other.state_dict())


def passed(
    scores: torch.Tensor,
    heat: float = 1.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return the soft choice of a clip's tokens: the softmax of their scores, (n,) → (n,).

    Parameters
    ----------
    scores : Tensor, (n,) float32
    heat : float
        Temperature (published: 1).
    generator : Generator, optional
        Adds Gumbel noise to the scores (public code: an alternative to none).
    """
    if generator is not None:
        drawn = torch.rand(scores.shape, generator=generator, device=generator.device)
        scores = scores - (-(drawn.clamp_min(1e-20)).log()).clamp_min(1e-20).log().to(scores.device)
    return (scores / heat).softmax(-1)


def straight_through(states: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    """Return the states of kept tokens, whose gradients also reach the scores that kept them.

    Each is multiplied by y_hard − y_soft + y_soft with y_hard = 1 and a gradient through the last
    term alone (published): in the forward pass by 1.

    Parameters
    ----------
    states : Tensor, (..., k, D)
    soft : Tensor, (..., k)
        `passed` of these tokens.
    """
    return states * (1.0 + (soft - soft.detach()))[..., None]


def _make(sizes: Mapping[str, Any]) -> Refiner:
    return Refiner(Shape(**sizes))


#: How a refiner is kept: in 16 bits, as decoders are published.
KIND = Kind(
    stem="refiner",
    what="refiner",
    method="EchoingPixels",
    train="A refiner is trained together with the decoder, into a model of its own, as "
    "samples/train_demo_refiner.py --out FOLDER does for the demo model. Then ask --model ",
    make=_make,
    dtype=torch.bfloat16,
)


def find(given: str | None, backbone: Backbone | None, width: int) -> Refiner:
    """Return the refiner of a model; see `Kind.find`."""
    return cast(Refiner, KIND.find(given, backbone, width).module)
