"""The KV cache: growth in place, cutting, rewinding, unequal lengths."""

from __future__ import annotations

import pytest
import torch

from omnidrop.engine.cache import GROWTH, KVCache


def states(n: int, start: float = 0.0) -> torch.Tensor:
    return (torch.arange(n, dtype=torch.float32) + start).view(1, 1, n, 1).expand(1, 2, n, 4)


def test_appends_in_order_and_returns_everything_held() -> None:
    cache = KVCache(2)
    cache.update(states(5), states(5), 0)
    for i in range(GROWTH + 3):
        keys, values = cache.update(states(1, 5 + i), states(1, 100 + i), 0)
    assert keys.shape == (1, 2, 5 + GROWTH + 3, 4)
    assert torch.equal(keys[0, 1, :, 0], torch.arange(5 + GROWTH + 3, dtype=torch.float32))
    assert values[0, 0, 5, 0] == 100
    assert cache.lengths == (5 + GROWTH + 3, 0)


def test_growth_never_writes_into_the_states_it_was_given() -> None:
    given = states(3).clone()
    cache = KVCache(1)
    cache.update(given, given, 0)
    cache.update(states(1, 9), states(1, 9), 0)
    cache.rewind((3,))
    cache.update(states(1, 7), states(1, 7), 0)
    assert torch.equal(given, states(3))
    assert cache.keys(0)[0, 0, 3, 0] == 7


def test_cut_keeps_chosen_tokens_of_one_layer() -> None:
    cache = KVCache(2)
    for layer in range(2):
        cache.update(states(6), states(6), layer)
    cache.cut(0, torch.tensor([1, 4]))
    assert cache.lengths == (2, 6)
    assert cache.keys(0)[0, 0, :, 0].tolist() == [1, 4]
    assert cache.bytes() == 2 * 4 * 2 * 4 * (2 + 6)


def test_bytes_does_not_count_spare_room() -> None:
    cache = KVCache(1)
    cache.update(states(4), states(4), 0)
    cache.update(states(1), states(1), 0)
    assert cache.bytes() == 2 * 4 * 2 * 4 * 5


def test_rewind_refuses_to_go_forward() -> None:
    cache = KVCache(1)
    cache.update(states(4), states(4), 0)
    with pytest.raises(ValueError, match="holds 4 tokens"):
        cache.rewind((5,))


def test_an_empty_layer_is_an_error() -> None:
    cache = KVCache(1)
    with pytest.raises(IndexError, match="layer 0 holds no keys"):
        cache.keys(0)
    with pytest.raises(IndexError, match="layer 0 holds no keys"):
        cache.cut(0, torch.tensor([0]))
