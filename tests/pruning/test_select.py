"""Choosing by score and by spacing."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from omnidrop.pruning.parts.select import diversify, even, rank_within, shares, spread, top


def test_top_keeps_order_and_breaks_ties_by_index():
    scores = torch.tensor([0.1, 0.5, 0.5, 0.9, 0.5])
    assert top(scores, 3).tolist() == [1, 2, 3]
    assert top(scores, 0).tolist() == []
    assert top(scores, 5).tolist() == [0, 1, 2, 3, 4]


@given(st.integers(1, 200), st.data())
def test_even_is_spread(length, data):
    count = data.draw(st.integers(0, length))
    index = even(length, count)
    assert len(index) == count == len(set(index.tolist()))
    if count:
        assert int(index[0]) >= 0
        assert int(index[-1]) < length
    if count > 1:
        assert int(index.diff().max()) - int(index.diff().min()) <= 1


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.data())
def test_shares_are_proportional_and_exact(sizes, data):
    total = sum(sizes)
    count = data.draw(st.integers(0, total))
    parts = shares(torch.tensor(sizes), count)
    assert int(parts.sum()) == count
    for size, part in zip(sizes, parts.tolist(), strict=True):
        assert 0 <= part <= size
        if total:
            assert abs(part - size * count / total) < 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_spread_takes_from_every_bin(bins, data):
    count = data.draw(st.integers(0, len(bins)))
    index = spread(torch.tensor(bins), count)
    assert len(index) == count
    assert bool((index.diff() > 0).all())
    for name in set(bins):
        part = sum(bins[i] == name for i in index.tolist())
        assert abs(part - bins.count(name) * count / len(bins)) < 1


def test_rank_within():
    place = torch.tensor([1, 0, 1, 1, 0])
    assert rank_within(place, torch.tensor([2, 3])).tolist() == [0, 0, 1, 2, 1]


def by_hand(scores, chunks, drop, weight, scaled):
    """Write the paper's sentence out in plain Python."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    far = chunks[order[0]]
    pool = order[max(len(order) - 2 * drop, 0) :]
    value = {i: scores[i] for i in pool}
    if scaled:
        low, high = min(value.values()), max(value.values())
        value = {i: (v - low) / (high - low) if high > low else 0.0 for i, v in value.items()}
    span = max(max(chunks), 1)
    value = {i: v + weight * abs(far - chunks[i]) / span for i, v in value.items()}
    best = sorted(pool, key=lambda i: (-value[i], order.index(i)))
    dropped = set(best[len(best) - drop :])
    return [i for i in range(len(scores)) if i not in dropped]


@given(
    # Halves of powers of two: sums are exact, so a tie in Python is a tie in float32.
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=24),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.data(),
)
def test_diversity_is_the_papers_sentence(pairs, weight, data):
    scores = [a / 8 for a, _ in pairs]
    chunks = [4 if c == 3 else c for _, c in pairs]
    drop = data.draw(st.integers(0, len(pairs)))
    got = diversify(
        torch.tensor(scores), torch.tensor(chunks, dtype=torch.int32), drop, weight, scaled=False
    )
    if max(chunks) != 0 and max(chunks) & (max(chunks) - 1):
        return
    assert got.tolist() == by_hand(scores, chunks, drop, weight, False)


def test_scaled_diversity_lets_relevance_count():
    # Attention as it is: tiny. Raw, distance alone decides; scaled, relevance does.
    scores = torch.tensor([9e-3, 1e-4, 9e-4, 8e-4, 2e-4])
    chunks = torch.tensor([0, 4, 1, 1, 1], dtype=torch.int32)
    assert diversify(scores, chunks, 2, 0.2, scaled=False).tolist() == [0, 1, 2]
    assert diversify(scores, chunks, 2, 0.2, scaled=True).tolist() == [0, 2, 3]
    assert by_hand(scores.tolist(), chunks.tolist(), 2, 0.2, True) == [0, 2, 3]


def test_diversity_without_anything_to_tell_apart():
    same = torch.full((6,), 0.25)
    one_chunk = torch.zeros(6, dtype=torch.int32)
    for scaled in (True, False):
        assert diversify(same, one_chunk, 2, 0.2, scaled=scaled).tolist() == [0, 1, 2, 3]
        assert diversify(same, one_chunk, 6, 0.2, scaled=scaled).tolist() == []
        assert diversify(same, one_chunk, 0, 0.2, scaled=scaled).tolist() == [0, 1, 2, 3, 4, 5]
