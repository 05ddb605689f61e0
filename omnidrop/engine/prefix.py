"""Prefix KV reuse: keep a clip's keys and values in the layers that do not depend on the question.

Audio and video come before the question, and attention is causal. So up to the layer where the
question first takes part in the selection, the clip's keys, values and hidden states are the same
for every question. A Session keeps those of the methods used last.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from omnidrop.engine import sequence as sequences
from omnidrop.engine.cache import CacheView, KVCache
from omnidrop.engine.sequence import Block, Whole
from omnidrop.pruning.method import Method, MethodState, Plan

#: Prefixes that a Session keeps.
PREFIXES = 2

#: Bytes that all of them may take.
PREFIX_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Key:
    """What a prefix depends on, apart from the clip and the random numbers drawn for it."""

    method: Method
    plan: Plan
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Handover:
    """The clip's state where the question first takes part in the selection.

    Attributes
    ----------
    clip : Block
        The clip's rows as they left the last layer of the prefix.
    planes : tuple of Tensor, (m, D) each
        Planes still to be added to its AV rows, one per layer.
    state : MethodState
        State of the method.
    generator : Tensor
        State of the method's random generator.
    """

    clip: Block
    planes: tuple[torch.Tensor, ...]
    state: MethodState
    generator: torch.Tensor


@dataclass
class Prefix:
    """What layers 0 to `layers` - 1 computed for a clip under one method.

    Attributes
    ----------
    survivors : tuple of Tensor, length `layers`
        Prompt indices of the AV tokens entering each layer, on the model's device.
    kv : tuple of CacheView, length `layers`
        Keys and values of the clip's rows, before later cuts by the "cut" cache policy.
    handover : Handover or None
        None if the question never takes part in the selection; the prefix then holds all layers.
    user : weak reference to KVCache
        The cache that may write to the spare room after the clip's keys and values.
    seed : int or None
        Seed of the random numbers that the method drew for these layers; None if it drew none, and
        every seed has the same prefix.
    """

    survivors: tuple[torch.Tensor, ...]
    kv: tuple[CacheView, ...]
    handover: Handover | None
    user: weakref.ref[KVCache]
    seed: int | None

    @property
    def layers(self) -> int:
        """Layers that need not be computed again for the clip."""
        return len(self.kv)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors held, each storage counted once, spare room included."""
        held = [t for view in self.kv for t in (view.keys, view.values)]
        if self.handover is not None:
            held += [self.handover.clip.hidden, self.handover.clip.angles]
            held += [*self.handover.planes, *self.handover.state.tensors()]
        storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in held)}
        return sum(storages.values())

    def start(self, cache: KVCache) -> None:
        """Start `cache` with the clip's keys and values.

        While an earlier user of the spare room exists, `cache` copies before it appends.
        """
        shared = self.user() is not None
        if not shared:
            self.user = weakref.ref(cache)
        for layer, view in enumerate(self.kv):
            cache.start_from(layer, view, copying=shared)


@dataclass(frozen=True)
class Resumed(sequences.Sequence):
    """Only the question's rows are computed; the clip's keys and values come from a prefix.

    Attributes
    ----------
    question : Block
        The rows after the last AV token.
    prefix : Prefix
    """

    question: Block
    prefix: Prefix

    @property
    def blocks(self) -> tuple[Block, ...]:
        return (self.question,)

    def through(self, layer: Callable[[Block], Block]) -> Resumed:
        return replace(self, question=layer(self.question))

    def add_plane(self) -> Resumed:
        return self  # already in the prefix's keys, values and states

    def join(self) -> Whole:
        handover = self.prefix.handover
        if handover is None:
            raise RuntimeError("This prefix holds all layers: there are no clip rows to join.")
        clip = handover.clip.followed_by(self.question)
        return Whole(self.rows, clip, handover.planes)

    def knows(self, layer: int) -> bool:
        """Whether the AV tokens entering `layer` were selected for an earlier question."""
        return layer < self.prefix.layers

    def follow(self, layer: int) -> Resumed:
        """Keep the AV tokens that entered `layer` for the earlier question."""
        index = torch.searchsorted(self.rows.survivors, self.prefix.survivors[layer])
        rows, _ = self.rows.keep(index)
        return replace(self, rows=rows)


class PrefixRecorder:
    """Collects a prefix layer by layer, while clip and question are computed separately.

    Parameters
    ----------
    cache : KVCache
        Cache of the current question.
    """

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._kv: list[CacheView] = []

    def layer(self, layer: int, clip_rows: int) -> None:
        """Share the first `clip_rows` keys and values of the layer that just ran."""
        self._kv.append(self._cache.share(layer, clip_rows))

    def prefix(
        self, survivors: Sequence[torch.Tensor], handover: Handover | None, seed: int | None
    ) -> Prefix:
        """Return what was collected; see `Prefix`."""
        return Prefix(tuple(survivors), tuple(self._kv), handover, weakref.ref(self._cache), seed)


@dataclass
class Prefixes:
    """The prefixes of one clip, least recently used first.

    Parameters
    ----------
    count : int
        Maximum number of prefixes.
    limit : int
        Maximum bytes of all of them; a larger one is not kept.
    """

    count: int = PREFIXES
    limit: int = PREFIX_BYTES
    _held: list[tuple[Key, Prefix]] = field(default_factory=list)

    def find(self, key: Key, seed: int) -> Prefix | None:
        """Return the prefix of `key` and `seed`; if there is none, drop the oldest to make room."""
        for i, (known, prefix) in enumerate(self._held):
            if known == key and prefix.seed in (None, seed):
                self._held.append(self._held.pop(i))
                return prefix
        del self._held[: max(0, len(self._held) - self.count + 1)]
        return None

    def add(self, key: Key, prefix: Prefix) -> None:
        """Keep a prefix if it is small enough; drop older ones to make room."""
        if not prefix.layers or prefix.bytes > self.limit:
            return
        self._held.append((key, prefix))
        while len(self._held) > self.count or self.bytes > self.limit:
            del self._held[0]

    def clear(self) -> None:
        """Drop all."""
        self._held.clear()

    @property
    def bytes(self) -> int:
        """Bytes of all prefixes kept."""
        return sum(prefix.bytes for _, prefix in self._held)

    def __len__(self) -> int:
        return len(self._held)
