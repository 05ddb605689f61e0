"""Simulates the engine: calls a method as a prefill does, with random attention.

It needs no model and no media: a prefill of a few hundred tokens takes milliseconds. `clip` makes a
TokenMap with any mix of audio and video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from omnidrop.pruning.method import (
    Entry,
    EntryView,
    Method,
    MethodState,
    Need,
    Plan,
    Rows,
    WholePrompt,
)
from omnidrop.tokens import Kind, TokenMap

#: Widths of the random embeddings and of the random hidden states.
WIDTH, STATE_WIDTH = 8, 4


def clip(
    chunks: int = 4, grids: int = 2, height: int = 3, width: int = 4, audio: int = 10
) -> TokenMap:
    """Make the AV tokens of a clip of two-second chunks, video before audio in each."""
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
    """Make a clip of exactly `total` AV tokens, about a sixth of them audio."""
    whole = clip(chunks=max(1, -(-total // 60)), grids=2, height=5, width=5, audio=10)
    if total < 60:
        return whole.select(torch.linspace(0, len(whole) - 1, total).round().long())
    return whole.select(torch.arange(total))


def reachable(budget: float, total: int, layers: int) -> bool:
    """Return whether some whole number of tokens, at least one, is within ±0.01 of a budget."""
    size = total * layers
    nearest = max(round(budget * size), 1)
    return abs(nearest / size - budget) <= 0.01 + 1e-12


@dataclass
class View:
    """A `LayerView` with given attention.

    Attributes
    ----------
    scores : Tensor, (n,) float32
        Attention that each surviving AV token receives, the same from all rows.
    blind : bool
        Raise an error if the text is read, as the engine does for a question-free method.
    """

    layer: int
    layers: int
    tokens: TokenMap
    generator: torch.Generator
    scores: torch.Tensor
    state: MethodState = field(default_factory=MethodState)
    blind: bool = False

    def _look(self) -> None:
        if self.blind:
            raise AssertionError("it is declared question-free, but reads the text")

    def attention(self, rows: Rows) -> torch.Tensor:
        """Return the attention, (n,)."""
        self._look()
        return self.scores

    def row_attention(self, rows: Rows) -> torch.Tensor:
        """Return the attention from each of three rows, scaled differently, (3, n)."""
        self._look()
        return self.scores[None] * torch.tensor([[0.5], [1.0], [1.5]])

    def hidden(self) -> torch.Tensor:
        """Return hidden states that are multiples of one another, (n, 4)."""
        return self.scores[:, None].expand(-1, STATE_WIDTH)

    def text_embeds(self, rows: Rows) -> torch.Tensor:
        """Return embeddings of three text rows, (3, 8)."""
        self._look()
        return torch.arange(24.0).sub(8).div(24).view(3, WIDTH)

    def text_hidden(self, rows: Rows) -> torch.Tensor:
        """Return hidden states of three text rows, (3, 4)."""
        self._look()
        return torch.arange(12.0).sub(5).div(12).view(3, STATE_WIDTH)


@dataclass
class Run:
    """The result of a simulated prefill.

    Attributes
    ----------
    plan : Plan
    entry : Entry
        The entry selection.
    survivors : list of Tensor, length L
        Indices of the AV tokens that entered each layer.
    chosen : list of (Entry, int)
        Each selection after a layer, and the number of tokens it was made from.
    """

    plan: Plan
    entry: Entry
    survivors: list[torch.Tensor]
    chosen: list[tuple[Entry, int]] = field(default_factory=list)

    @property
    def realised(self) -> float:
        """Mean over the layers of the share of tokens that entered."""
        return sum(map(len, self.survivors)) / (len(self.survivors) * self.plan.total)


def entry_view(
    tokens: TokenMap,
    seed: int = 0,
    width: int = WIDTH,
    state: MethodState | None = None,
    wants: frozenset[str] = frozenset(Need),
    phrases: Sequence[str] = (),
) -> EntryView:
    """Make an EntryView with random embeddings, attention of the encoders, question and phrases."""
    draw = torch.Generator().manual_seed(seed + 1)
    embeds = torch.randn(len(tokens), width, generator=draw)
    audio = torch.rand(int(tokens.audio.sum()), generator=draw)
    video = torch.rand(int(tokens.video.sum()), generator=draw)
    question = torch.randn(3, width, generator=draw)
    told = tuple(torch.randn(2, width, generator=draw) for _ in phrases)
    prompt = _whole(tokens, embeds, question, draw) if Need.PROMPT in wants else None
    return EntryView(
        tokens=tokens,
        embeds=embeds,
        audio_attention=audio,
        video_attention=video if Need.VIDEO_ATTENTION in wants else None,
        generator=torch.Generator().manual_seed(seed),
        state=state or MethodState(),
        question_embeds=question if Need.QUESTION in wants else None,
        phrase_embeds=told,
        prompt=prompt,
    )


def _whole(
    tokens: TokenMap, embeds: torch.Tensor, question: torch.Tensor, draw: torch.Generator
) -> WholePrompt:
    """Make a prompt of two text rows, the clip, the question and one more text row."""
    total, asked = len(embeds), len(question)
    before, after = (torch.randn(n, embeds.shape[1], generator=draw) for n in (2, 1))
    clip = tokens.grid.T.clamp_min(0).to(torch.int64) + 2
    end = int(clip.max()) + 1 if total else 2
    behind = (end + torch.arange(asked + 1)).expand(3, -1)
    return WholePrompt(
        torch.cat((before, embeds, question, after)),
        torch.cat((torch.arange(2).expand(3, -1), clip, behind), dim=1),
        torch.arange(2, 2 + total),
        torch.cat((torch.arange(2), torch.arange(2 + total, total + asked + 3))),
    )


def prefill(
    method: Method,
    tokens: TokenMap,
    layers: int,
    seed: int = 0,
    *,
    see: Callable[[EntryView], EntryView] = lambda view: view,
    fork: bool = False,
) -> Run:
    """Run a method through `layers` layers, as the engine does.

    Parameters
    ----------
    method : Method
    tokens : TokenMap
        The AV tokens.
    layers : int
    seed : int
        Seed of embeddings, attention and the method's random numbers.
    see : callable
        Changes the view that the method gets at entry.
    fork : bool
        Continue with a fork of the method's state after every layer, as a later question does.
    """
    plan = method.plan(tokens, layers)
    if not len(tokens):
        return Run(plan, Entry(torch.arange(0)), [torch.arange(0)] * layers)
    view = see(
        entry_view(
            tokens, seed, state=method.start(plan), wants=method.wants, phrases=method.phrases
        )
    )
    draw = torch.Generator().manual_seed(seed + 2)
    entry = method.enter(view, plan)
    run, alive, state = Run(plan, entry, []), entry.keep, view.state
    for layer in range(layers):
        run.survivors.append(alive)
        if layer + 1 < layers and (plan.adaptive or plan.counts[layer + 1] < len(alive)):
            if fork:
                state = state.fork()
            shown = View(
                layer=layer,
                layers=layers,
                tokens=tokens.select(alive),
                generator=view.generator,
                state=state,
                scores=torch.rand(len(alive), generator=draw) / len(alive),
                blind=method.question_free,
            )
            chosen = method.keep(shown, plan.counts[layer + 1])
            made = chosen if isinstance(chosen, Entry) else Entry(chosen)
            run.chosen.append((made, len(alive)))
            alive = alive[made.keep]
    return run
