"""The KV cache, in which each layer has its own length.

Dropping tokens layer by layer leaves layers with different numbers of tokens; transformers' cache
takes the first layer's length for all. This cache appends in place (buffers grow by blocks, so
decoding does not copy them for each token), can be cut to selected tokens, and can be rewound after
a choice was scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Tokens of room added when a layer's buffer is full.
GROWTH = 256


@dataclass(frozen=True)
class CacheView:
    """The first `length` tokens of a layer's buffers, never changed; spare room may follow."""

    keys: torch.Tensor
    values: torch.Tensor
    length: int


class KVCache:
    """Keys and values per layer, (1, kv_heads, n_layer, head_dim) each.

    Parameters
    ----------
    layers : int
        Decoder layers, L.
    even : bool
        Whether all layers will hold the same number of tokens.
    """

    def __init__(self, layers: int, *, even: bool = False) -> None:
        self.even = even
        self._keys: list[torch.Tensor | None] = [None] * layers
        self._values: list[torch.Tensor | None] = [None] * layers
        self._lengths = [0] * layers

    def __len__(self) -> int:
        return len(self._lengths)

    def length(self, layer: int) -> int:
        """Tokens held by `layer`."""
        return self._lengths[layer]

    def filled(self, layer: int) -> None:
        """Return None: all that `update` returns counts."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens held by each layer."""
        return tuple(self._lengths)

    def keys(self, layer: int) -> torch.Tensor:
        """Keys of `layer`, already rotated, (1, kv_heads, n, head_dim)."""
        keys = self._keys[layer]
        if keys is None:
            raise IndexError(f"layer {layer} holds no keys yet")
        return keys[:, :, : self._lengths[layer]]

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append and return all keys and values of a layer.

        Parameters
        ----------
        key, value : Tensor, (1, kv_heads, n, head_dim)
            New states; keys already rotated.
        layer : int
        """
        held, keys, values = self._lengths[layer], self._keys[layer], self._values[layer]
        new = key.shape[2]
        if keys is None or values is None:
            self._keys[layer], self._values[layer] = key, value
            self._lengths[layer] = new
            return key, value
        if held + new > keys.shape[2]:
            room = max(GROWTH, new) - new
            keys = _joined(keys[:, :, :held], key, room)
            values = _joined(values[:, :, :held], value, room)
            self._keys[layer], self._values[layer] = keys, values
        else:
            keys[:, :, held : held + new] = key
            values[:, :, held : held + new] = value
        self._lengths[layer] = held + new
        return keys[:, :, : held + new], values[:, :, : held + new]

    def share(self, layer: int, length: int) -> CacheView:
        """Return the first `length` tokens of a layer, from which another cache can start."""
        keys, values = self._held(layer)
        return CacheView(keys, values, length)

    def start_from(self, layer: int, view: CacheView, *, copying: bool) -> None:
        """Start a layer with the tokens of another cache.

        Parameters
        ----------
        layer : int
        view : CacheView
        copying : bool
            Copy them before anything is appended, because the other cache is still in use.
            Otherwise new tokens are written into its spare room.
        """
        end = view.length if copying else view.keys.shape[2]
        self._keys[layer] = view.keys[:, :, :end]
        self._values[layer] = view.values[:, :, :end]
        self._lengths[layer] = view.length

    def cut(self, layer: int, index: torch.Tensor) -> None:
        """Keep only the tokens at `index` ((n,) int64, ascending) in one layer."""
        keys, values = self._held(layer)
        held = self._lengths[layer]
        index = index.to(keys.device)
        self._keys[layer] = keys[:, :, :held].index_select(2, index)
        self._values[layer] = values[:, :, :held].index_select(2, index)
        self._lengths[layer] = int(index.shape[0])

    def move(self, layer: int, capacity: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy a layer into new buffers for `capacity` tokens, use them, and return them.

        The room after the tokens is zero. The old buffers do not change.
        """
        keys, values = self._held(layer)
        held = self._lengths[layer]
        keys = _with_room(keys[:, :, :held], capacity - held)
        values = _with_room(values[:, :, :held], capacity - held)
        keys[:, :, held:] = 0
        values[:, :, held:] = 0
        self._keys[layer], self._values[layer] = keys, values
        return keys, values

    def move_into(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Copy a layer into given buffers, (1, kv_heads, capacity, head_dim), and use them."""
        old_keys, old_values = self._held(layer)
        if keys is old_keys and values is old_values:
            return
        held = self._lengths[layer]
        keys[:, :, :held] = old_keys[:, :, :held]
        values[:, :, :held] = old_values[:, :, :held]
        self._keys[layer], self._values[layer] = keys, values

    def extend(self, count: int) -> None:
        """Count `count` more tokens in every layer, already written into its buffers."""
        for layer, keys in enumerate(self._keys):
            room = keys.shape[2] if keys is not None else 0
            if self._lengths[layer] + count > room:
                raise ValueError(f"layer {layer} has room for {room} tokens")
            self._lengths[layer] += count

    def rewind(self, lengths: tuple[int, ...]) -> None:
        """Remove the tokens appended after `lengths` was read."""
        for layer, length in enumerate(lengths):
            if length > self._lengths[layer]:
                raise ValueError(f"layer {layer} holds {self._lengths[layer]} tokens, not {length}")
            self._lengths[layer] = length

    def _held(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            raise IndexError(f"layer {layer} holds no keys yet")
        return keys, values

    def bytes(self) -> int:
        """Bytes of the keys and values held, spare room not counted."""
        total = 0
        for keys, length in zip(self._keys, self._lengths, strict=True):
            if keys is not None:
                total += 2 * keys.element_size() * keys.shape[1] * keys.shape[3] * length
        return total


def _joined(states: torch.Tensor, more: torch.Tensor, room: int) -> torch.Tensor:
    """Return both, with room for `room` tokens behind them, in one operation on the device."""
    batch, heads, _, dim = states.shape
    return torch.cat([states, more, states.new_empty((batch, heads, room, dim))], 2)


def _with_room(states: torch.Tensor, room: int) -> torch.Tensor:
    batch, heads, held, dim = states.shape
    grown = states.new_empty((batch, heads, held + room, dim))
    grown[:, :, :held] = states
    return grown
