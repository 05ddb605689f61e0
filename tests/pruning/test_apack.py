"""A-PACK: its published tiers, and its entry against a plain reading."""

from __future__ import annotations

import math

import pytest
import torch

from omnidrop.errors import UsageError
from omnidrop.pruning.methods.apack import APack, density, segments
from omnidrop.pruning.parts.frames import Frames
from omnidrop.pruning.registry import get_preset
from omnidrop.testing.simulate import clip, clip_of, entry_view


@pytest.mark.parametrize(
    ("name", "enters", "rate", "mean"),
    [("apack-35", 500, 0.10, 0.389), ("apack-25", 350, 0.15, 0.251)],
)
def test_a_tier_drops_its_share_after_every_layer_from_the_middle(name, enters, rate, mean):
    plan = get_preset(name).plan(clip_of(1000), 28)
    wanted = [enters] * 15
    while len(wanted) < 28:
        wanted.append(wanted[-1] - math.floor(rate * wanted[-1]))
    assert list(plan.counts) == wanted
    assert plan.realised == pytest.approx(mean, abs=5e-4)


def test_other_depths_begin_where_published_or_in_the_middle():
    for layers, first in ((36, 18), (30, 15)):
        counts = get_preset("apack-35").plan(clip_of(1000), layers).counts
        assert counts[first] == 500 > counts[first + 1]


def test_a_budget_between_the_tiers_lies_between_their_settings():
    settings = APack(budget=0.3).plan(clip_of(1000), 28).settings
    assert 0.35 < settings["entry_ratio"] < 0.5
    assert 0.10 < settings["p_final"] < 0.15


def test_audio_stays_whole_and_video_gets_the_rest():
    view = entry_view(clip(chunks=4, grids=2, height=6, width=6, audio=10), 0)
    plan = APack(budget=0.4).plan(view.tokens, 28)
    kept = APack(budget=0.4).enter(view, plan).keep
    assert int(view.tokens.audio[kept].sum()) == int(view.tokens.audio.sum())
    assert len(kept) == plan.counts[0]


def test_where_audio_is_most_of_a_clip_video_keeps_half_of_its_part():
    view = entry_view(clip(chunks=4, grids=1, height=2, width=2, audio=50), 0)
    method = APack(budget=0.2)
    plan = method.plan(view.tokens, 28)
    kept = method.enter(view, plan).keep
    share = int(view.tokens.video.sum()) / len(view.tokens)
    assert int(view.tokens.video[kept].sum()) == round(0.5 * plan.counts[0] * share) > 0


def plain_cka(a: torch.Tensor, b: torch.Tensor) -> float:
    """Linear CKA of two matrices by its definition, in float64."""
    a, b = a.double() - a.double().mean(0), b.double() - b.double().mean(0)
    return float((b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm()))


def test_segments_end_where_neighbours_are_unlike():
    view = entry_view(clip(chunks=5, grids=1, height=3, width=4, audio=0), 0)
    frames = Frames.of(view.tokens)
    rows = view.embeds.view(5, 12, -1)
    rows[1], rows[3], rows[4] = rows[0], rows[2], 2 * rows[2]
    index = torch.arange(len(view.tokens))
    apart = plain_cka(rows[1], rows[2])
    assert apart < 0.97
    assert segments(view.embeds, index, frames, 0.97).tolist() == [0, 0, 1, 1, 1]
    assert segments(view.embeds, index, frames, apart - 1e-3).tolist() == [0] * 5
    assert segments(view.embeds, index, frames, apart + 1e-3).tolist() == [0, 0, 1, 1, 1]


def test_a_segment_is_not_longer_than_eight_frames():
    view = entry_view(clip(chunks=20, grids=1, height=2, width=2, audio=0), 0)
    view.embeds[:] = view.embeds[:4].repeat(20, 1)
    found = segments(view.embeds, torch.arange(80), Frames.of(view.tokens), 0.97)
    assert torch.bincount(found).tolist() == [8, 8, 4]


def test_density_is_the_mean_of_the_nearest_cosines():
    points = torch.randn(1, 8, 5, generator=torch.Generator().manual_seed(0))
    units = torch.nn.functional.normalize(points[0], dim=-1)
    for i in range(8):
        near = sorted((float(units[i] @ units[j]) for j in range(8) if j != i), reverse=True)[:5]
        assert float(density(points)[0, i]) == pytest.approx((1 + sum(near) / 5) / 2, abs=1e-5)
    assert density(points[:, :1]).tolist() == [[1.0]]


def test_a_share_and_a_rate_go_together():
    with pytest.raises(UsageError, match="go together"):
        APack(budget=0.3, enters=0.5)
