"""The rows of a prompt between two decoder layers.

Rows pass a layer in one block (`Whole`) or in two (`Split`): the clip's rows, which no question
changes, and then the question's. A later question on the same clip passes only its own rows
(`omnidrop.engine.prefix.Resumed`) until it first takes part in the selection. There, `join` makes
a `Whole` of them.

Sequences do not change: each step returns a new one. Row indices are on the model's device, and
how many there are follows from what is asked for, so nothing here waits for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch

from omnidrop.engine.device_prompt import DevicePrompt
from omnidrop.models.adapter import Rotary
from omnidrop.moving import moved
from omnidrop.pruning.method import Entry


@dataclass(frozen=True)
class Block:
    """Rows that pass a layer together.

    Attributes
    ----------
    hidden : Tensor, (1, n, D)
        Hidden states.
    rotary : pair of Tensor, (1, n, head_dim)
        Cosine and sine of the rows' positions.
    """

    hidden: torch.Tensor
    rotary: Rotary

    def __len__(self) -> int:
        return int(self.hidden.shape[1])

    def states(self, index: torch.Tensor) -> torch.Tensor:
        """Return the hidden states at `index` ((k,) int64), (k, D)."""
        return self.hidden[0].index_select(0, index)

    def select(self, index: torch.Tensor) -> Block:
        """Return the rows at `index` ((k,) int64)."""
        cos, sin = self.rotary
        return Block(
            self.hidden.index_select(1, index),
            (cos.index_select(1, index), sin.index_select(1, index)),
        )

    def last(self) -> Block:
        """Return the last row."""
        cos, sin = self.rotary
        return Block(self.hidden[:, -1:], (cos[:, -1:], sin[:, -1:]))

    def but_last(self) -> Block:
        """Return all rows but the last."""
        cos, sin = self.rotary
        return Block(self.hidden[:, :-1], (cos[:, :-1], sin[:, :-1]))

    def followed_by(self, other: Block) -> Block:
        """Return the rows of both."""
        (cos, sin), (other_cos, other_sin) = self.rotary, other.rotary
        return Block(
            torch.cat([self.hidden, other.hidden], 1),
            (torch.cat([cos, other_cos], 1), torch.cat([sin, other_sin], 1)),
        )


@dataclass(frozen=True)
class Rows:
    """Which tokens of the prompt are still alive; all tensors are on the model's device.

    Attributes
    ----------
    alive : Tensor, (n,) int64
        Their prompt indices, ascending.
    text : Tensor, (n - m,) int64
        Indices into `alive` of the tokens that are never dropped.
    av : Tensor, (m,) int64
        Indices into `alive` of the audio and video tokens.
    """

    alive: torch.Tensor
    text: torch.Tensor
    av: torch.Tensor

    @staticmethod
    def of(prompt: DevicePrompt) -> Rows:
        """Return all rows of a prompt."""
        return Rows(torch.arange(len(prompt), device=prompt.device), prompt.text, prompt.av)

    def __len__(self) -> int:
        return int(self.alive.shape[0])

    @property
    def survivors(self) -> torch.Tensor:
        """Prompt indices of the AV tokens, (m,) int64."""
        return self.alive[self.av]

    def keep(self, index: torch.Tensor) -> tuple[Rows, torch.Tensor]:
        """Let all text and some AV tokens go on.

        Parameters
        ----------
        index : Tensor, (k,) int64
            Which AV tokens: ascending indices into `av`, on any device.

        Returns
        -------
        rows : Rows
            Those left.
        stay : Tensor, (n - m + k,) int64
            Their ascending indices into `alive`.
        """
        if len(index) == len(self.av):
            return self, torch.arange(len(self), device=self.alive.device)
        kept = self.av[moved(index, self.alive.device)]
        stay = torch.cat([self.text, kept]).sort().values
        left = (torch.searchsorted(stay, part) for part in (self.text, kept))
        return Rows(self.alive[stay], *left), stay


@dataclass(frozen=True)
class Sequence(ABC):
    """The rows that are alive between two layers.

    Attributes
    ----------
    rows : Rows
        Which they are.
    """

    rows: Rows

    @property
    @abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """Blocks that pass the next layer, in this order; the question is in the last."""

    @abstractmethod
    def through(self, layer: Callable[[Block], Block]) -> Self:
        """Pass every block through a layer."""

    @abstractmethod
    def add_plane(self) -> Self:
        """Add the first of the planes that are left to the AV tokens' states."""

    @abstractmethod
    def join(self) -> Whole:
        """Return one block of all rows."""


@dataclass(frozen=True)
class Whole(Sequence):
    """All rows pass together.

    Attributes
    ----------
    block : Block, n rows
    planes : tuple of Tensor, (m, D) each
        What is added to the AV tokens' states after the next layers, one tensor per layer.
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
        """Let the AV tokens that `entry` names go on, with the states that it gives them."""
        rows, stay = self.rows.keep(entry.keep)
        return Whole(
            rows,
            _kept(self.block, self.rows.av, entry, stay, rows.av),
            tuple(taken(plane, entry) for plane in self.planes),
        )


@dataclass(frozen=True)
class Split(Sequence):
    """The clip's rows pass first, the question's after them.

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
        """Let the AV tokens that `entry` names go on, with the states that it gives them."""
        rows, stay = self.rows.keep(entry.keep)
        in_clip = stay[: len(stay) - len(self.question)]  # the question's rows all stay
        return Split(
            rows,
            _kept(self.clip, self.rows.av, entry, in_clip, rows.av),
            self.question,
            tuple(taken(plane, entry) for plane in self.planes),
        )


def taken(plane: torch.Tensor, entry: Entry) -> torch.Tensor:
    """Return what the kept AV tokens carry of a plane, (m, D) → (k, D); not copied if all of it."""
    if entry.mix is None and len(entry.keep) == len(plane):
        return plane
    return entry.take(plane)


def _kept(
    block: Block, av: torch.Tensor, entry: Entry, stay: torch.Tensor, kept: torch.Tensor
) -> Block:
    """Return the rows at `stay`, of which those at `kept` carry what `entry` makes of rows `av`."""
    if entry.mix is None:
        return block if len(stay) == len(block) else block.select(stay)
    left = block.select(stay)
    in_block = Entry(
        av[moved(entry.keep, av.device)],
        replace(entry.mix, source=av[moved(entry.mix.source, av.device)]),
    )
    states = in_block.take(block.hidden[0])
    left.hidden[0].index_copy_(0, kept, states)
    return left


def _add(block: Block, av: torch.Tensor, plane: torch.Tensor) -> None:
    """Add a plane to the rows at `av`, in place: a layer's states are its own."""
    block.hidden[0].index_add_(0, av, plane)
