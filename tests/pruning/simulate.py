"""A stand-in for the engine: the same calls in the same order, with random attention.

It also stands in for a clip: `clip` makes the TokenMap of any mix of sound and picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from omnidrop.pruning.method import Entry, EntryView, Method, MethodState, Plan
from omnidrop.tokens import Kind, TokenMap


def clip(
    chunks: int = 4, grids: int = 2, height: int = 3, width: int = 4, audio: int = 10
) -> TokenMap:
    """Make the AV tokens of a clip: per chunk all its video tokens, then its audio tokens."""
    kind: list[int] = []
    chunk: list[int] = []
    grid: list[tuple[int, int, int]] = []
    for c in range(chunks):
        for g in range(grids):
            for h in range(height):
                for w in range(width):
                    kind.append(Kind.VIDEO)
                    grid.append((c * grids + g, h, w))
                    chunk.append(c)
        for a in range(audio):
            kind.append(Kind.AUDIO)
            grid.append((c * audio + a, -1, -1))
            chunk.append(c)
    return TokenMap(
        kind=torch.tensor(kind, dtype=torch.int8),
        chunk=torch.tensor(chunk, dtype=torch.int32),
        grid=torch.tensor(grid, dtype=torch.int32).reshape(-1, 3),
    )


def clip_of(total: int) -> TokenMap:
    """Make a clip of exactly `total` AV tokens, about one in six of them audio."""
    whole = clip(chunks=max(1, -(-total // 60)), grids=2, height=5, width=5, audio=10)
    if total < 60:
        return whole.select(torch.linspace(0, len(whole) - 1, total).round().long())
    return whole.select(torch.arange(total))


def reachable(budget: float, total: int, layers: int) -> bool:
    """Tell whether some whole number of tokens, at least one, is within ±0.01 of a budget."""
    size = total * layers
    nearest = max(round(budget * size), 1)
    return abs(nearest / size - budget) <= 0.01 + 1e-12


@dataclass
class View:
    """A `LayerView` with attention drawn at random."""

    layer: int
    layers: int
    tokens: TokenMap
    generator: torch.Generator
    scores: torch.Tensor
    state: MethodState = field(default_factory=MethodState)

    def attention(self, rows: str) -> torch.Tensor:
        """Return the drawn attention, whatever the rows."""
        return self.scores

    def row_attention(self, rows: str) -> torch.Tensor:
        """Return the drawn attention for each of three rows, in different strength."""
        return self.scores[None] * torch.tensor([[0.5], [1.0], [1.5]])

    def hidden(self) -> torch.Tensor:
        """Return hidden states of width 4."""
        return self.scores[:, None].expand(-1, 4)

    def text_hidden(self, rows: str) -> torch.Tensor:
        """Return hidden states of three text rows, width 4."""
        return torch.arange(12.0).view(3, 4)

    def text_embeds(self, rows: str) -> torch.Tensor:
        """Return embeddings of three text rows, width 8."""
        return torch.arange(24.0).sub(8).div(24).view(3, 8)


@dataclass
class Run:
    """What a simulated prefill did; `survivors` are indices into the AV tokens, per layer."""

    plan: Plan
    entry: Entry
    survivors: list[torch.Tensor]

    @property
    def realised(self) -> float:
        """Mean over layers of the share of tokens that entered."""
        return sum(map(len, self.survivors)) / (len(self.survivors) * self.plan.total)


def entry_view(
    tokens: TokenMap, seed: int = 0, width: int = 8, state: MethodState | None = None
) -> EntryView:
    """Make an EntryView with random embeddings and audio attention."""
    draw = torch.Generator().manual_seed(seed + 1)
    return EntryView(
        tokens=tokens,
        embeds=torch.randn(len(tokens), width, generator=draw),
        audio_attention=torch.rand(int(tokens.audio.sum()), generator=draw),
        video_attention=torch.rand(int(tokens.video.sum()), generator=draw),
        generator=torch.Generator().manual_seed(seed),
        state=state or MethodState(),
    )


def prefill(method: Method, tokens: TokenMap, layers: int, seed: int = 0) -> Run:
    """Run a method through `layers` layers, as the engine does."""
    plan = method.plan(tokens, layers)
    view = entry_view(tokens, seed, state=method.start(plan))
    draw = torch.Generator().manual_seed(seed + 2)
    if not len(tokens):
        return Run(plan, Entry(torch.arange(0)), [torch.arange(0)] * layers)
    entry = method.enter(view, plan)
    alive = entry.keep
    survivors = []
    for layer in range(layers):
        survivors.append(alive)
        if layer + 1 < layers and (plan.adaptive or plan.counts[layer + 1] < len(alive)):
            seen = View(
                layer=layer,
                layers=layers,
                tokens=tokens.select(alive),
                generator=view.generator,
                state=view.state,
                scores=torch.rand(len(alive), generator=draw) / len(alive),
            )
            chosen = method.keep(seen, plan.counts[layer + 1])
            if isinstance(chosen, Entry):
                assert chosen.take(seen.hidden()).shape == (len(chosen.keep), 4)
                chosen = chosen.keep
            alive = alive[chosen]
    return Run(plan, entry, survivors)
