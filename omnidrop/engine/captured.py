"""A decoding step that a GPU repeats by itself: recorded once as a CUDA graph, then replayed.

A step of a 7B model is some thousand short kernels, and launching them from Python takes longer
than running them. A graph launches them all at once, but it repeats addresses and sizes. So keys
and values stand in buffers of fixed size, their lengths, the token and its position on the device,
and the step itself chooses the next token.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

import torch

from omnidrop.engine.cache import GROWTH, KVCache
from omnidrop.engine.picking import Draws, Picker
from omnidrop.models.adapter import Adapter
from omnidrop.models.kernels import Filled

#: Steps that buffers get room for at once, at most; after them they grow and are recorded anew.
ROOM = 1024
#: Steps from which recording one (about as long as two plain ones) is worth it.
WORTH = 4
#: Bytes of keys and values kept with a recorded step for the next question, at most: so many, and
#: so large a share of the device's memory.
KEPT_BYTES = 512 * 1024**2
KEPT_SHARE = 0.02

#: A process records one graph at a time.
_RECORDING = threading.Lock()


@dataclass(frozen=True)
class Chosen:
    """A token of the answer; `logprob` is its log-probability, 0 where nobody asked."""

    token: int
    logprob: float = 0.0


def obstacle(adapter: Adapter) -> str | None:
    """Say why steps over fixed buffers are no use or impossible, or return None.

    On CUDA they are taken even where none will be recorded: in 16 bits another kernel rounds
    otherwise, and an answer's tokens must not depend on how many were asked for.
    """
    if adapter.device.type != "cuda":
        return f"the device is {adapter.device.type}"
    if adapter.info.attention == "eager":
        return "eager attention needs to know its sizes"
    return None


def unrecordable(adapter: Adapter) -> str | None:
    """Say why a step cannot be recorded, where that is known beforehand."""
    if adapter.info.quantization == "8bit":
        return "8-bit products ask the host for outliers"
    return None


class _Buffers:
    """The `LayerCache` of a step: fixed buffers, filled up to where the device says."""

    even = False

    def __init__(self, layers: int, device: torch.device) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.places = torch.zeros(layers, dtype=torch.int64, device=device)
        self.used = torch.zeros(layers, dtype=torch.int32, device=device)
        self.row = torch.arange(2, dtype=torch.int32, device=device)
        self.rooms: list[torch.Tensor] = []

    def length(self, layer: int) -> int:
        return 0

    def filled(self, layer: int) -> Filled:
        return Filled(self.used[layer : layer + 1], self.row, self.rooms[layer])

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        place = self.places[layer : layer + 1]
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, place, key)
        values.index_copy_(2, place, value)
        return keys, values

    def take(self, cache: KVCache, steps: int, anew: bool) -> bool:
        """Move `cache` in here, with room for `steps` more; return whether buffers are new."""
        grown = False
        for layer, length in enumerate(cache.lengths):
            known = layer < len(self.keys)
            if anew or not known or self.keys[layer].shape[2] < length + steps:
                keys, values = cache.move(layer, -(-(length + steps) // GROWTH) * GROWTH)
                room = torch.tensor([0, keys.shape[2]], dtype=torch.int32, device=keys.device)
                if not known:
                    self.keys.append(keys)
                    self.values.append(values)
                    self.rooms.append(room)
                else:
                    self.keys[layer], self.values[layer] = keys, values
                    self.rooms[layer] = room
                grown = True
            else:
                cache.move_into(layer, self.keys[layer], self.values[layer])
        self.places.copy_(torch.tensor(cache.lengths))
        return grown


class FixedStep:
    """One decoding step over buffers of fixed size; it feeds a token and chooses the next.

    Nothing in it asks the host for anything. The first step after the buffers were made runs as it
    is, the second is recorded, and it and all later ones are replayed. Where recording fails,
    `failed` says why and all run as they are.

    Parameters
    ----------
    adapter : Adapter
    picker : Picker
    logprobs : bool
        Also tell the log-probability of each chosen token.
    """

    def __init__(self, adapter: Adapter, picker: Picker, *, logprobs: bool) -> None:
        self.picker, self.logprobs = picker, logprobs
        self.failed = unrecordable(adapter)
        self._adapter, self._device = adapter, adapter.device
        self._layers = adapter.info.text.layers
        self._buffers = _Buffers(self._layers, self._device)
        self._token = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._position = torch.zeros(3, 1, dtype=torch.int64, device=self._device)
        self._draws = torch.zeros(ROOM, device=self._device)
        self._at = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._told = torch.zeros(2, dtype=torch.float64, device=self._device)
        on_gpu = self._device.type == "cuda"
        self._host = torch.zeros(2, 2, dtype=torch.float64, pin_memory=on_gpu)
        self._events = [torch.cuda.Event() for _ in range(2)] if on_gpu else []
        self._stream = torch.cuda.Stream(self._device) if on_gpu else None
        self._pool = torch.cuda.graph_pool_handle() if on_gpu else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outgrown: torch.cuda.CUDAGraph | None = None
        self._user: weakref.ref[KVCache] | None = None
        self._warm, self._left, self._taken = False, 0, 0
        self._cache: KVCache | None = None

    @property
    def taken(self) -> int:
        """Steps taken since `begin`."""
        return self._taken

    @property
    def recorded(self) -> bool:
        """Whether the next step is a replay."""
        return self._graph is not None

    @property
    def bytes(self) -> int:
        """Bytes of the buffers."""
        held = [*self._buffers.keys, *self._buffers.values]
        return sum(t.untyped_storage().nbytes() for t in held)

    @property
    def keepable(self) -> int:
        """Bytes of buffers that may stay on this device between two questions."""
        if self._device.type != "cuda":
            return KEPT_BYTES
        total = torch.cuda.get_device_properties(self._device).total_memory
        return min(KEPT_BYTES, int(KEPT_SHARE * total))

    def begin(
        self,
        cache: KVCache,
        token: int,
        position: int | float,
        draws: Draws,
        index: int,
        steps: int,
    ) -> None:
        """Go on from a cache.

        Parameters
        ----------
        cache : KVCache
            From now on it lives in the buffers of this step.
        token : int
            To feed first.
        position : int or float
            Its rotary position.
        draws : Draws
        index : int
            Number of the token that the first step chooses; 0 is the prefill's.
        steps : int
            Steps to take at most.
        """
        self._cache, self._of, self._index, self._steps = cache, draws, index, steps
        self._token.fill_(token)
        dtype = torch.float32 if isinstance(position, float) else torch.int64
        if self._position.dtype != dtype:  # a family's positions are all of one type
            self._position = self._position.to(dtype)
            self._graph, self._warm = None, False
        self._position.fill_(position)
        self._taken = 0
        self._make_room(cache)

    def end(self) -> None:
        """Let go of the cache, which is still in the buffers: while it lives, they are its own."""
        self._cache = None

    def _make_room(self, cache: KVCache) -> None:
        other = self._user() if self._user is not None else None
        self._left = min(self._steps - self._taken, ROOM)
        if self._buffers.take(cache, self._left, anew=other not in (None, cache)):
            # Replayed no more, but the memory of its pool is the next recording's to use.
            self._outgrown = self._graph or self._outgrown
            self._graph, self._warm = None, False
        self._user = weakref.ref(cache)
        first = self._index + self._taken
        self._draws[: self._left].copy_(self._of(first, self._left))
        self._at.zero_()

    def advance(self) -> None:
        """Take a step; on a GPU it may still be running on return. `read` gives its token."""
        cache = self._cache
        if cache is None:
            raise RuntimeError("a step was taken before `begin`")
        with self._current():
            self._advance(cache)

    def _advance(self, cache: KVCache) -> None:
        if not self._left:
            self._make_room(cache)
        worth = self._steps - self._taken >= WORTH
        if self._warm and worth and self._graph is None and self.failed is None:
            self._record()
        if self._graph is not None:
            self._graph.replay()
        else:
            with self._aside():
                self._run()
            self._warm = True
        self._left -= 1
        self._taken += 1
        cache.extend(1)
        slot = self._taken % 2
        self._host[slot].copy_(self._told, non_blocking=True)
        if self._events:
            self._events[slot].record()

    def read(self, step: int) -> Chosen:
        """Wait for a step (1 is the first; the last or the one before it), return its token."""
        if self._events:
            self._events[step % 2].synchronize()
        token, logprob = self._host[step % 2].tolist()
        return Chosen(int(token), logprob)

    def _run(self) -> None:
        adapter, buffers = self._adapter, self._buffers
        hidden = adapter.embed(self._token).unsqueeze(0)
        rotary = adapter.rotary(self._position)
        torch.add(buffers.places, 1, out=buffers.used)
        for layer in range(self._layers):
            hidden = adapter.layer(layer, hidden, rotary, buffers)
        logits = adapter.logits(hidden)
        token = self.picker(logits, self._draws.index_select(0, self._at))
        self._token.copy_(token)
        self._told[:1].copy_(token)
        if self.logprobs:
            self._told[1:].copy_(logits.log_softmax(-1).index_select(0, token))
        buffers.places += 1
        self._position += 1
        self._at += 1

    def _record(self) -> None:
        """Record a step without running it. Other threads may go on using the device.

        Not by `torch.cuda.graph`, which gives all unused memory back to the driver first: the next
        prefill would have to ask for it again.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            with _RECORDING, self._aside():
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    self._run()
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            self.failed = first_line(error.__context__ or error)
            # A recording that breaks off leaves the allocator waiting for its end, and a test of
            # the graph's own to tell whose memory is meant.
            self._outgrown = graph
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(
                    self._device.index or 0,
                    self._pool,  # type: ignore[arg-type]
                )
        else:
            self._graph, self._outgrown = graph, None

    def _current(self) -> AbstractContextManager[object]:
        """Make the device the current one, on which streams and graphs are."""
        return torch.cuda.device(self._device) if self._events else nullcontext()

    def _aside(self) -> AbstractContextManager[None]:
        """On a stream of its own, in order with the current one: the default can't be recorded."""
        return nullcontext() if self._stream is None else _in_order(self._stream)


@contextmanager
def _in_order(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work on another stream, after what is queued on this one and before what comes next."""
    here = torch.cuda.current_stream(stream.device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        yield
    here.wait_stream(stream)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or what it is."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class Steps:
    """Keeps a recorded step for the next question."""

    def __init__(self) -> None:
        self._kept: list[FixedStep] = []

    def take(self, adapter: Adapter, picker: Picker, *, logprobs: bool) -> FixedStep:
        """Return the kept step where it is of the same kind, or a new one."""
        try:
            step = self._kept.pop()
        except IndexError:
            return FixedStep(adapter, picker, logprobs=logprobs)
        if (step.picker, step.logprobs) == (picker, logprobs):
            return step
        return FixedStep(adapter, picker, logprobs=logprobs)

    def keep(self, step: FixedStep) -> None:
        """Keep a step if its buffers are small enough."""
        if (step.recorded or step.failed) and step.bytes <= step.keepable:
            self._kept[:] = [step]

    def clear(self) -> None:
        """Let it go."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


def ahead(
    step: FixedStep, steps: int, stage: Callable[[str], AbstractContextManager[None]]
) -> Iterator[Chosen]:
    """Yield the tokens of `steps` steps, each while the next one already runs.

    Parameters
    ----------
    step : FixedStep
        Begun, and perhaps taken.
    steps : int
        The most it was begun for.
    stage : callable
        Measures what is named.
    """
    taken = step.taken
    for wanted in range(1, steps + 1):
        with stage("decode"):
            # Only a replay is quick to launch: before there is one, a token would wait for it.
            while taken < min(wanted + step.recorded, steps):
                step.advance()
                taken += 1
            chosen = step.read(wanted)
        yield chosen
