"""The rows of a prompt between two decoder layers.

A layer computes the rows in one block (`Whole`) or in two (`Split`): the clip's rows, which do not
depend on the question, and then the question's. For a later question on the same clip only the
question's rows are computed (`omnidrop.engine.prefix.Resumed`) until the question first takes part
in the selection. There, `join` makes one block of all rows.

Sequences are immutable: each step returns a new one. Row indices are on the model's device; their
number is known on the host, so nothing here synchronises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch

from omnidrop.engine.device_prompt import DevicePrompt
from omnidrop.models.adapter import Rotary
from omnidrop.pruning.method import Entry
from omnidrop.transfers import to_device


@dataclass(frozen=True)
class Block:
    """Rows that a layer computes together.

    Attributes
    ----------
    hidden : Tensor, (1, n, D)
        Hidden states.
    angles : Tensor, (2, n, head_dim)
        Cosine and sine of the rows' positions.
    """

    hidden: torch.Tensor
    angles: torch.Tensor

    @staticmethod
    def of(hidden: torch.Tensor, rotary: Rotary) -> Block:
        """Return the rows with states `hidden` and angles as an adapter gives them."""
        return Block(hidden, torch.cat(rotary))

    @cached_property
    def rotary(self) -> Rotary:
        """Cosine and sine, (1, n, head_dim) each."""
        return self.angles[:1], self.angles[1:]

    def __len__(self) -> int:
        return int(self.hidden.shape[1])

    def states(self, index: torch.Tensor) -> torch.Tensor:
        """Return the hidden states at `index` ((k,) int64), (k, D)."""
        return self.hidden[0].index_select(0, index)

    def select(self, index: torch.Tensor) -> Block:
        """Return the rows at `index` ((k,) int64)."""
        return Block(self.hidden.index_select(1, index), self.angles.index_select(1, index))

    def run(self, start: int, stop: int) -> Block:
        """Return the rows from `start` to before `stop`; nothing is copied."""
        return Block(self.hidden[:, start:stop], self.angles[:, start:stop])

    def last(self) -> Block:
        """Return the last row."""
        return self.run(len(self) - 1, len(self))

    def but_last(self) -> Block:
        """Return all rows but the last."""
        return self.run(0, len(self) - 1)

    def followed_by(self, other: Block) -> Block:
        """Return the rows of both, those of `other` last."""
        return Block(
            torch.cat([self.hidden, other.hidden], 1), torch.cat([self.angles, other.angles], 1)
        )


@dataclass(frozen=True)
class Rows:
    """Which tokens of the prompt are still alive; all tensors are on the model's device.

    Attributes
    ----------
    alive : Tensor, (n,) int64
        Their prompt indices, ascending.
    av : Tensor, (m,) int64
        Indices into `alive` of the audio and video tokens.
    lead : int or None
        Text tokens before the AV tokens; None if text stands between those.
    places : Tensor, (N,) int64, N at least n
        0, 1, 2, …: runs of indices are parts of it.
    """

    alive: torch.Tensor
    av: torch.Tensor
    lead: int | None
    places: torch.Tensor

    @staticmethod
    def of(prompt: DevicePrompt) -> Rows:
        """Return all rows of a prompt."""
        alive = torch.arange(len(prompt), device=prompt.device)
        return Rows(alive, prompt.av, prompt.lead, alive)

    def __len__(self) -> int:
        return int(self.alive.shape[0])

    @cached_property
    def columns(self) -> torch.Tensor | slice:
        """Indices into `alive` of the AV tokens, as a slice where they are one run."""
        return self.av if self.lead is None else slice(self.lead, self.lead + len(self.av))

    @cached_property
    def survivors(self) -> torch.Tensor:
        """Prompt indices of the AV tokens, (m,) int64."""
        return self.alive[self.columns]

    def keep(self, index: torch.Tensor) -> tuple[Rows, torch.Tensor]:
        """Keep all text and some AV tokens.

        Parameters
        ----------
        index : Tensor, (k,) int64
            The AV tokens to keep: ascending indices into `av`, on any device.

        Returns
        -------
        rows : Rows
            The rows that are left.
        stay : Tensor, (n - m + k,) int64
            Their ascending indices into `alive`.
        """
        if len(index) == len(self.av):
            return self, self.places[: len(self)]
        index, lead = to_device(index, self.alive.device), self.lead
        if lead is None:
            kept = self.av.index_select(0, index)
            stay = torch.cat([self.text, kept]).sort().values
            av = torch.searchsorted(stay, kept)
        else:  # the AV tokens are one run, so nothing need be sorted
            kept = index + lead if lead else index
            after = self.places[lead + len(self.av) : len(self)]
            stay = torch.cat([self.places[:lead], kept, after])
            av = self.places[lead : lead + len(kept)]
        return Rows(self.alive.index_select(0, stay), av, lead, self.places), stay

    @cached_property
    def text(self) -> torch.Tensor:
        """Indices into `alive` of the tokens that are never dropped, (n - m,) int64."""
        n, m, lead = len(self), len(self.av), self.lead
        if lead is not None:
            return torch.cat([self.places[:lead], self.places[lead + m : n]])
        free = torch.ones(n, dtype=torch.uint8, device=self.av.device)
        # Text first; `nonzero` would wait for the device.
        return free.index_fill_(0, self.av, 0).sort(descending=True, stable=True).indices[: n - m]


@dataclass(frozen=True)
class Sequence(ABC):
    """The rows that are alive between two layers.

    Attributes
    ----------
    rows : Rows
        Their prompt indices, and which are text and AV tokens.
    """

    rows: Rows

    @property
    @abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """Blocks that the next layer computes, in this order; the question is in the last."""

    @abstractmethod
    def through(self, layer: Callable[[Block], Block]) -> Self:
        """Run a layer on every block."""

    @abstractmethod
    def add_plane(self) -> Self:
        """Add the next plane to the AV tokens' states."""

    @abstractmethod
    def join(self) -> Whole:
        """Return one block of all rows."""


@dataclass(frozen=True)
class Whole(Sequence):
    """All rows in one block.

    Attributes
    ----------
    block : Block, n rows
    planes : tuple of Tensor, (m, D) each
        Embeddings to add to the AV tokens' states after the next layers, one tensor per layer.
    """

    block: Block
    planes: tuple[torch.Tensor, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        return (self.block,)

    @property
    def clip(self) -> Block:
        """The block with the AV tokens; `rows.av` are indices into it."""
        return self.block

    def through(self, layer: Callable[[Block], Block]) -> Whole:
        return replace(self, block=layer(self.block))

    def add_plane(self) -> Whole:
        if self.planes:
            _add(self.block, self.rows.av, self.planes[0])
        return replace(self, planes=self.planes[1:])

    def join(self) -> Whole:
        return self

    def keep(self, entry: Entry) -> Whole:
        """Keep the AV tokens of `entry`, with the states that it gives them."""
        rows, stay = self.rows.keep(entry.keep)
        return Whole(
            rows,
            _kept(self.block, self.rows.av, entry, stay, rows.av),
            tuple(taken(plane, entry) for plane in self.planes),
        )


@dataclass(frozen=True)
class Split(Sequence):
    """Two blocks: the clip's rows, then the question's.

    Attributes
    ----------
    clip : Block
        All rows up to the last AV token; `rows.av` are indices into it.
    question : Block
        The rows after it.
    planes : tuple of Tensor, (m, D) each
        As in `Whole`.
    """

    clip: Block
    question: Block
    planes: tuple[torch.Tensor, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        return (self.clip, self.question)

    def through(self, layer: Callable[[Block], Block]) -> Split:
        return replace(self, clip=layer(self.clip), question=layer(self.question))

    def add_plane(self) -> Split:
        if self.planes:
            _add(self.clip, self.rows.av, self.planes[0])
        return replace(self, planes=self.planes[1:])

    def join(self) -> Whole:
        return Whole(self.rows, self.clip.followed_by(self.question), self.planes)

    def keep(self, entry: Entry) -> Split:
        """Keep the AV tokens of `entry`, with the states that it gives them."""
        rows, stay = self.rows.keep(entry.keep)
        in_clip = stay[: len(stay) - len(self.question)]  # the question's rows all stay
        return Split(
            rows,
            _kept(self.clip, self.rows.av, entry, in_clip, rows.av),
            self.question,
            tuple(taken(plane, entry) for plane in self.planes),
        )


def taken(plane: torch.Tensor, entry: Entry) -> torch.Tensor:
    """Return a plane's rows for the kept AV tokens, merges included, (m, D) → (k, D).

    The plane itself if all tokens stay and none are merged. States that the entry replaces are not
    part of a plane (`Entry.carry`).
    """
    if entry.mix is None and len(entry.keep) == len(plane):
        return plane
    return entry.take(plane)


def _kept(
    block: Block, av: torch.Tensor, entry: Entry, stay: torch.Tensor, kept: torch.Tensor
) -> Block:
    """Return the rows at `stay`; those at `kept` get the states that `entry` gives rows `av`."""
    if entry.mix is None and entry.states is None:
        return block if len(stay) == len(block) else block.select(stay)
    left = block.select(stay)
    if entry.mix is None:
        left.hidden[0].index_copy_(0, kept, entry.carry(block.hidden[0]))
        return left
    in_block = Entry(
        av[to_device(entry.keep, av.device)],
        replace(entry.mix, source=av[to_device(entry.mix.source, av.device)]),
    )
    states = in_block.take(block.hidden[0])
    left.hidden[0].index_copy_(0, kept, states)
    return left


def _add(block: Block, av: torch.Tensor, plane: torch.Tensor) -> None:
    """Add a plane to the rows at `av`, in place; nothing else refers to a layer's output."""
    block.hidden[0].index_add_(0, av, plane)
