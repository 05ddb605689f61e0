"""What stays of a question for the next one: the clip's way through the first layers.

Audio and video come before the question, and attention looks back only. So until a method first
lets the question choose, the clip's keys, values and states are the same for every question, and a
Session keeps those of the methods it was asked with last.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

import torch

from omnidrop.engine.cache import KVCache, Lent
from omnidrop.engine.sequence import Block
from omnidrop.pruning.method import Method, MethodState, Plan

#: Prefixes a Session keeps, and the bytes that all of them may take.
PREFIXES = 2
PREFIX_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Key:
    """What a prefix depends on, the clip itself aside."""

    method: Method
    plan: Plan
    seed: int
    ids: tuple[int, ...]


@dataclass
class Prefix:
    """The clip's way through layers 0 to `layers` - 1 under one method.

    Attributes
    ----------
    survivors : tuple of Tensor, length `layers`
        Prompt indices of the AV tokens entering each of them.
    states : tuple of Lent, length `layers`
        Their keys and values, whole also where the method cuts earlier caches.
    block : Block or None
        The clip's rows as they left the last of them; None after the last layer of all.
    state : MethodState
        What the method remembered then.
    generator : Tensor
        State of the generator then.
    user : weak reference to KVCache
        Who writes to the room behind the clip's keys and values.
    """

    survivors: tuple[torch.Tensor, ...]
    states: tuple[Lent, ...]
    block: Block | None
    state: MethodState
    generator: torch.Tensor
    user: weakref.ref[KVCache]

    @property
    def layers(self) -> int:
        """Layers that need not be run again for the clip."""
        return len(self.states)

    @property
    def bytes(self) -> int:
        """Bytes of keys, values (room for the answer included), states and the method's tensors."""
        held = [t for lent in self.states for t in (lent.keys, lent.values)]
        held += self.state.tensors()
        if self.block is not None:
            held += [self.block.hidden, *self.block.rotary]
        return sum(t.untyped_storage().nbytes() for t in held)

    def lend(self, cache: KVCache) -> None:
        """Let `cache` begin with the clip's keys and values.

        While an earlier user of the room behind them is alive, `cache` copies before it appends.
        """
        shared = self.user() is not None
        if not shared:
            self.user = weakref.ref(cache)
        for layer, lent in enumerate(self.states):
            cache.borrow(layer, lent, copying=shared)


@dataclass
class Prefixes:
    """The prefixes of one clip's embeddings, the latest used last.

    Parameters
    ----------
    count : int
        Prefixes kept at most.
    limit : int
        Bytes that all of them may take; a larger one is not kept.
    """

    count: int = PREFIXES
    limit: int = PREFIX_BYTES
    _held: list[tuple[Key, Prefix]] = field(default_factory=list)

    def find(self, key: Key) -> Prefix | None:
        """Return what is kept for `key`; otherwise let the oldest go where there is no room."""
        for i, (known, prefix) in enumerate(self._held):
            if known == key:
                self._held.append(self._held.pop(i))
                return prefix
        del self._held[: max(0, len(self._held) - self.count + 1)]
        return None

    def add(self, key: Key, prefix: Prefix) -> None:
        """Keep a prefix if it is small enough, and let older ones go for it."""
        if not prefix.layers or prefix.bytes > self.limit:
            return
        self._held.append((key, prefix))
        while len(self._held) > self.count or self.bytes > self.limit:
            del self._held[0]

    def clear(self) -> None:
        """Let all go."""
        self._held.clear()

    @property
    def bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(prefix.bytes for _, prefix in self._held)

    def __len__(self) -> int:
        return len(self._held)
