"""DASH against a plain-loop reading of its paper and public code."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import plain
import pytest
import torch

from omnidrop.errors import UsageError
from omnidrop.pruning.methods.dash import Dash
from omnidrop.pruning.parts.frames import Frames
from omnidrop.testing.simulate import clip, entry_view
from omnidrop.tokens import Kind


def segments(rows, threshold=0.4, shortest=30):
    """Starts of segments: where the sound changes, not too soon after the last cut."""
    starts = [0]
    for t in range(1, len(rows)):
        if plain.cosine(rows[t - 1], rows[t]) < threshold and t - starts[-1] >= shortest:
            starts.append(t)
    return starts


def uniqueness(rows):
    """1 − five Gaussians around the mean direction, over the calmer half of the channels."""
    width = len(rows[0])
    if width > 10:
        spread = []
        for d in range(width):
            column = [r[d] for r in rows]
            mean = sum(column) / len(column)
            spread.append(sum((x - mean) ** 2 for x in column) / len(column))
        calm = sorted(range(width), key=lambda d: spread[d])[: width // 2]
        rows = [[r[d] for d in calm] for r in rows]
    units = [[x / math.sqrt(plain.dot(r, r)) for x in r] for r in rows]
    centre = [sum(column) / len(units) for column in zip(*units, strict=True)]
    alike = []
    for u in units:
        square = sum((x - c) ** 2 for x, c in zip(u, centre, strict=True))
        alike.append(sum(math.exp(-square / (2 * a)) for a in (0.125, 0.25, 0.5, 1, 2)))
    return [1 - a / max(alike) for a in alike]


def audio_scores(rows, attention):
    """0.4 boundary + 0.3 uniqueness + 0.3 attention."""
    change = [1.0] + [(1 - plain.cosine(a, b)) / 2 for a, b in pairwise(rows)]
    unique = uniqueness(rows)
    return [
        0.4 * c / (max(change) + 1e-6) + 0.3 * u + 0.3 * a / (max(attention) + 1e-6)
        for c, u, a in zip(change, unique, attention, strict=True)
    ]


def isolation(rows):
    """Minus the mean cosine to the five nearest."""
    scores = []
    for i, a in enumerate(rows):
        near = sorted((plain.cosine(a, b) for j, b in enumerate(rows) if j != i), reverse=True)[:5]
        scores.append(-sum(near) / len(near) if near else 1.0)
    return scores


def slow_dash(view, heard, seen):
    """Token by token: what stays, and what it carries."""
    tokens, embeds = view.tokens, view.embeds.double().tolist()
    audio, video = plain.of_kind(tokens, Kind.AUDIO), plain.of_kind(tokens, Kind.VIDEO)
    rows = [embeds[i] for i in audio]
    few = min(round(0.05 * len(audio)), heard // 2)
    scores = audio_scores(rows, view.audio_attention.tolist())
    dominant = [audio[n] for n in plain.best(scores, heard - few)]
    carried = {i: embeds[i] for i in dominant}
    carried |= plain.merged_audio(embeds, audio, video, set(dominant), few, 3)
    frames = plain.frames_of(tokens)
    starts = segments(rows)
    cuts = [math.floor(s * len(frames) / len(audio) + 0.5) for s in starts]
    windows = [max(w for w, cut in enumerate(cuts) if cut <= f) for f in range(len(frames))]
    shares = []
    for w in windows:
        inside = audio[starts[w] : starts[w + 1] if w + 1 < len(starts) else None]
        stays = sum(i in carried for i in inside) / len(inside)
        rate = (1 - seen / len(video)) + 0.1 * (0.5 - stays)
        shares.append(1 - min(max(rate, 0.1), 0.95))
    quotas = plain.whole_numbers(shares, [len(f) for f in frames], seen)
    chosen = plain.paired_frames(embeds, frames, windows, quotas, isolation)
    return carried | {i: embeds[i] for i in chosen}, starts


@pytest.mark.parametrize("budget", [0.06, 0.2, 0.3, 0.5, 0.85])
@pytest.mark.parametrize(("chunks", "width"), [(4, 8), (7, 16)])
def test_survivors_are_those_of_the_plain_reading(chunks, width, budget):
    view = entry_view(clip(chunks=chunks, grids=2, height=3, width=4, audio=25), chunks, width)
    method = Dash(budget=budget)
    plan = method.plan(view.tokens, 8)
    count = plan.counts[0]
    heard = plain.quota_on_path(25 * chunks, 24 * chunks, count, [(0, 0), (0.6, 0.24), (1, 1)])
    assert (plan.settings["audio_kept"], plan.settings["video_kept"]) == (heard, count - heard)
    carried, starts = slow_dash(view, heard, count - heard)
    assert len(starts) >= 3  # random sound changes all the time
    entry = method.enter(view, plan)
    assert entry.keep.tolist() == sorted(carried)
    wanted = torch.tensor([carried[i] for i in sorted(carried)])
    torch.testing.assert_close(
        entry.take(view.embeds),
        wanted,
        atol=1e-5,
        rtol=1e-5,
    )


def test_segments_follow_the_sound():
    """Three notes of 40, 60 and 50 tokens; the change after 15 tokens is too soon to cut."""
    tokens = clip(chunks=6, grids=2, height=2, width=2, audio=25)
    view = entry_view(tokens)
    audio = tokens.audio.nonzero().flatten()
    note = torch.eye(8)[[0] * 40 + [1] * 15 + [2] * 45 + [3] * 50]
    view.embeds[audio] = note
    heard, seen = Dash().windows(view, audio, frames(tokens))
    assert torch.bincount(heard).tolist() == [40, 60, 50]
    assert torch.bincount(seen).tolist() == [3, 5, 4]


def test_the_first_token_of_a_new_sound_is_kept():
    tokens = clip(chunks=4, grids=1, height=2, width=2, audio=40)
    view = entry_view(tokens, width=32)
    audio = tokens.audio.nonzero().flatten()
    draw = torch.Generator().manual_seed(4)
    starts = (0, 50, 90)
    view.embeds[audio] = 0.01 * torch.randn(160, 32, generator=draw)
    for start, end in zip(starts, (50, 90, 160), strict=True):
        view.embeds[audio[start:end]] += torch.randn(32, generator=draw)
    view.audio_attention.fill_(0.5)
    chosen = Dash().scores(view, audio).topk(3).indices
    assert set(chosen.tolist()) == set(starts)


def test_without_audio_there_is_one_segment():
    tokens = clip(chunks=4, grids=2, height=4, width=4, audio=0)
    view = entry_view(tokens)
    method = Dash(budget=0.25)
    entry = method.enter(view, method.plan(tokens, 8))
    by_frame = torch.bincount(tokens.select(entry.keep).grid[:, 0])
    assert by_frame.tolist() == [4] * 8


def test_without_encoder_attention_the_other_two_signals_decide():
    view = entry_view(clip(chunks=3, audio=20))
    method = Dash(budget=0.4)
    plan = method.plan(view.tokens, 8)
    silent = replace(view, audio_attention=None)
    level = replace(view, audio_attention=torch.zeros_like(view.audio_attention))
    assert torch.equal(method.enter(silent, plan).keep, method.enter(level, plan).keep)
    assert not torch.equal(method.enter(silent, plan).keep, method.enter(view, plan).keep)


def test_preset_is_that_of_the_published_evaluation():
    method = Dash.presets()["dash-29"]
    assert (method.rho_a, method.rho_v, method.contextual, method.group) == (0.45, 0.76, 0.05, 3)
    assert (method.threshold, method.shortest, method.guidance) == (0.4, 30, 0.1)
    tokens = clip(chunks=10, grids=2, height=10, width=6, audio=20)
    plan = method.plan(tokens, 28)
    assert plan.counts == (110 + 10 + 288,) * 28
    assert plan.realised == pytest.approx(0.29, abs=0.005)


@pytest.mark.parametrize("fields", [{"threshold": 2}, {"shortest": 0}, {"rho_a": -1}])
def test_settings_that_cannot_be_meant(fields):
    with pytest.raises(UsageError):
        Dash(**fields)


def frames(tokens):
    """Frames of a clip's video."""
    return Frames.of(tokens.select(tokens.video))
