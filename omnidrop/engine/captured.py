"""Decode with a CUDA graph: one decode step is captured once and replayed for every token.

A step of a 7B model is about a thousand short kernels, and launching them from Python takes longer
than running them. A graph launches all of them with one call, but its addresses and sizes are
fixed. So keys and values are in buffers of fixed size; their lengths, the token and its position
are on the device; and the step itself selects the next token.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

import torch

from omnidrop.engine.cache import GROWTH, KVCache
from omnidrop.engine.picking import Draws, Picker
from omnidrop.models.adapter import Adapter
from omnidrop.models.kernels import Filled

#: Steps that the buffers are allocated for, at most. After them, the buffers grow and the graph is
#: captured again.
ROOM = 1024
#: Remaining steps from which capturing (as long as about two plain steps) pays.
WORTH = 4
#: Limits of the keys and values that a captured step keeps for the next question: bytes, and share
#: of the device's memory. The smaller one counts.
KEPT_BYTES = 512 * 1024**2
KEPT_SHARE = 0.02

#: A process captures one graph at a time.
_CAPTURING = threading.Lock()


@dataclass(frozen=True)
class Chosen:
    """A token of the answer, and its log-probability at temperature 1.

    `top` has the most probable tokens and their log-probabilities, if they are asked for.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, report: Sequence[float]) -> Chosen:
        """Read what `Picker.report` told."""
        token, logprob, *best = report
        half = len(best) // 2
        return cls(int(token), logprob, tuple(zip(map(int, best[:half]), best[half:], strict=True)))


def obstacle(adapter: Adapter) -> str | None:
    """Return why steps over fixed buffers cannot be used, or None if they can.

    On CUDA they are used even if no graph will be captured: in 16 bits the plain loop's kernels
    round differently, and an answer's tokens must not depend on how many were requested.
    """
    if adapter.device.type != "cuda":
        return f"the device is {adapter.device.type}"
    if adapter.info.attention == "eager":
        return "eager attention needs sizes on the host"
    return None


def not_capturable(adapter: Adapter) -> str | None:
    """Return why a step cannot be captured, if that is known in advance; else None."""
    if adapter.info.quantization == "8bit":
        return "8-bit matrix products synchronise with the host"
    return None


class _Buffers:
    """The `LayerCache` of a step: buffers of fixed size, whose filled lengths are on the device."""

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

    def take(self, cache: KVCache, steps: int, allocate: bool) -> bool:
        """Move `cache` into these buffers, with room for `steps` more tokens.

        `allocate` makes new buffers even if the old ones are large enough. Returns whether any
        buffer is new.
        """
        grown = False
        for layer, length in enumerate(cache.lengths):
            known = layer < len(self.keys)
            if allocate or not known or self.keys[layer].shape[2] < length + steps:
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
    """One decode step over buffers of fixed size; it feeds a token and selects the next.

    The log-probability of the selected token is computed on the device, and read with the token. It
    never synchronises with the host. The first step after the buffers were allocated runs
    eagerly; the second is captured, and it and all later ones are replayed. If capturing fails,
    `failed` holds the reason and all steps run eagerly.

    Parameters
    ----------
    adapter : Adapter
    picker : Picker
    """

    def __init__(self, adapter: Adapter, picker: Picker) -> None:
        self.picker = picker
        self.failed = not_capturable(adapter)
        self._adapter, self._device = adapter, adapter.device
        self._layers = adapter.info.text.layers
        self._buffers = _Buffers(self._layers, self._device)
        self._token = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._position = torch.zeros(3, 1, dtype=torch.int64, device=self._device)
        self._draws = torch.zeros(ROOM, device=self._device)
        self._at = torch.zeros(1, dtype=torch.int64, device=self._device)
        told = 2 + 2 * min(picker.top, adapter.info.text.vocab)
        self._output = torch.zeros(told, dtype=torch.float64, device=self._device)
        on_gpu = self._device.type == "cuda"
        self._host = torch.zeros(2, told, dtype=torch.float64, pin_memory=on_gpu)
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
        """Steps launched since `begin`."""
        return self._taken

    @property
    def captured(self) -> bool:
        """Whether there is a graph, so that the next step is a replay."""
        return self._graph is not None

    @property
    def bytes(self) -> int:
        """Bytes of the buffers."""
        held = [*self._buffers.keys, *self._buffers.values]
        return sum(t.untyped_storage().nbytes() for t in held)

    @property
    def keepable(self) -> int:
        """Bytes of buffers that may stay allocated between two questions."""
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
        """Start decoding from a cache.

        Parameters
        ----------
        cache : KVCache
            Moved into the buffers of this step.
        token : int
            The first token to feed.
        position : int or float
            Its rotary position.
        draws : Draws
        index : int
            Index in the answer of the token that the first step selects; the prefill selected 0.
        steps : int
            Maximum number of steps.
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
        """Drop the reference to the cache.

        It still uses the buffers. While it exists, the next `begin` allocates others.
        """
        self._cache = None

    def _make_room(self, cache: KVCache) -> None:
        other = self._user() if self._user is not None else None
        self._left = min(self._steps - self._taken, ROOM)
        if self._buffers.take(cache, self._left, allocate=other not in (None, cache)):
            # Not replayed again, but kept: the next capture reuses the memory of its pool.
            self._outgrown = self._graph or self._outgrown
            self._graph, self._warm = None, False
        self._user = weakref.ref(cache)
        first = self._index + self._taken
        self._draws[: self._left].copy_(self._of(first, self._left))
        self._at.zero_()

    def advance(self) -> None:
        """Launch a step; on a GPU it may still be running on return. `read` gives its token."""
        cache = self._cache
        if cache is None:
            raise RuntimeError("`advance` was called before `begin`")
        with self._current():
            self._advance(cache)

    def _advance(self, cache: KVCache) -> None:
        if not self._left:
            self._make_room(cache)
        worth = self._steps - self._taken >= WORTH
        if self._warm and worth and self._graph is None and self.failed is None:
            self._capture()
        if self._graph is not None:
            self._graph.replay()
        else:
            with self._own_stream():
                self._run()
            self._warm = True
        self._left -= 1
        self._taken += 1
        cache.extend(1)
        slot = self._taken % 2
        self._host[slot].copy_(self._output, non_blocking=True)
        if self._events:
            self._events[slot].record()

    def read(self, step: int) -> Chosen:
        """Wait for a step and return its token.

        `step` counts from 1; only the last two steps can be read.
        """
        if self._events:
            self._events[step % 2].synchronize()
        return Chosen.of(self._host[step % 2].tolist())

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
        self._output.copy_(self.picker.report(logits, token))
        buffers.places += 1
        self._position += 1
        self._at += 1

    def _capture(self) -> None:
        """Capture a step without running it. Other threads may use the device meanwhile.

        `torch.cuda.graph` is not used: it first returns all unused memory to the driver, so the
        next prefill would have to allocate it again.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            with _CAPTURING, self._own_stream():
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    self._run()
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            self.failed = first_line(error.__context__ or error)
            # After an aborted capture the allocator still routes allocations to the pool, through a
            # filter that belongs to the graph. So the graph is kept, and the routing ended here.
            self._outgrown = graph
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(
                    self._device.index or 0,
                    self._pool,  # type: ignore[arg-type]
                )
        else:
            self._graph, self._outgrown = graph, None

    def _current(self) -> AbstractContextManager[object]:
        """Make this device the current one: streams and graphs belong to a device."""
        return torch.cuda.device(self._device) if self._events else nullcontext()

    def _own_stream(self) -> AbstractContextManager[None]:
        """Use a separate stream, in order with the current one: the default can't be captured."""
        return nullcontext() if self._stream is None else _in_order(self._stream)


@contextmanager
def _in_order(stream: torch.cuda.Stream) -> Iterator[None]:
    """Use another stream, ordered after earlier and before later work of the current one."""
    here = torch.cuda.current_stream(stream.device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        yield
    here.wait_stream(stream)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class Steps:
    """Keeps a captured step for the next question."""

    def __init__(self) -> None:
        self._kept: list[FixedStep] = []

    def take(self, adapter: Adapter, picker: Picker) -> FixedStep:
        """Return the kept step if it selects tokens in the same way, or a new one."""
        try:
            step = self._kept.pop()
        except IndexError:
            return FixedStep(adapter, picker)
        return step if step.picker == picker else FixedStep(adapter, picker)

    def keep(self, step: FixedStep) -> None:
        """Keep a step if its buffers are small enough."""
        if (step.captured or step.failed) and step.bytes <= step.keepable:
            self._kept[:] = [step]

    def clear(self) -> None:
        """Free the kept step."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


def ahead(
    step: FixedStep, steps: int, stage: Callable[[str], AbstractContextManager[None]]
) -> Iterator[Chosen]:
    """Yield the tokens of `steps` steps, each while the next step already runs.

    Parameters
    ----------
    step : FixedStep
        After `begin`; it may already have advanced.
    steps : int
        As given to `begin`.
    stage : callable
        Times the stage of a given name.
    """
    taken = step.taken
    for wanted in range(1, steps + 1):
        with stage("decode"):
            # Launch ahead only once there is a graph: an eager launch would delay the token.
            while taken < min(wanted + step.captured, steps):
                step.advance()
                taken += 1
            chosen = step.read(wanted)
        yield chosen
