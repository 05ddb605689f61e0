"""OmniZip against a plain-loop reading of its paper and public code."""

from __future__ import annotations

import math
from dataclasses import replace

import plain
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnidrop.errors import UsageError
from omnidrop.pruning.methods.omnizip import OmniZip
from omnidrop.pruning.parts.audio_guided import apportion, audio_quota
from omnidrop.testing.simulate import clip, entry_view
from omnidrop.tokens import Kind

#: Through both pairs of the paper, anchors included.
PATH = [(0.0, 0.0), (0.65, 0.3), (0.75, 0.4), (1.0, 1.0)]


def density_peaks(rows):
    """Density of five neighbours times the distance to the nearest denser token."""
    n = len(rows)
    if n == 1:
        return [1.0]
    apart = [[1 - plain.cosine(a, b) for b in rows] for a in rows]
    density = []
    for i in range(n):
        near = sorted(apart[i][j] for j in range(n) if j != i)[:5]
        density.append(math.exp(-sum(near) / len(near)))
    scores = []
    for i in range(n):
        denser = [apart[i][j] for j in range(n) if density[j] > density[i]]
        gap = min(denser) if denser else max(apart[i][j] for j in range(n) if j != i)
        scores.append(density[i] * gap)
    return scores


def window_rates(kept, sizes, target):
    """Rates per window as published; `kept` is None for a window without audio."""
    rates = [target if k is None else min(max(0.75 - 0.40 * k, 0.35), 0.75) for k in kept]
    led = [w for w, k in enumerate(kept) if k is not None]
    if len(led) <= 2 or not 0.35 <= target <= 0.75:
        return rates
    order = sorted(led, key=lambda w: rates[w])
    low, high, inner = order[0], order[-1], order[1:-1]
    goal = target * sum(sizes[w] for w in led) - rates[low] * sizes[low] - rates[high] * sizes[high]
    factor = goal / sum(rates[w] * sizes[w] for w in inner)
    for w in inner:
        rates[w] = min(max(rates[w] * factor, 0.35), 0.75)
    missing = goal - sum(rates[w] * sizes[w] for w in inner)
    for w in inner:
        rates[w] = min(max(rates[w] + missing / sum(sizes[v] for v in inner), 0.35), 0.75)
    return rates


def slow_omnizip(view, heard, seen):
    """Token by token: what stays, and what it carries."""
    tokens, embeds = view.tokens, view.embeds.double().tolist()
    audio, video = plain.of_kind(tokens, Kind.AUDIO), plain.of_kind(tokens, Kind.VIDEO)
    few = min(round(0.05 * len(audio)), heard // 2)
    dominant = [audio[n] for n in plain.best(view.audio_attention.tolist(), heard - few)]
    carried = {i: embeds[i] for i in dominant}
    carried |= plain.merged_audio(embeds, audio, video, set(dominant), few, 3)
    frames = plain.frames_of(tokens)
    windows = [int(tokens.chunk[rows[0]]) for rows in frames]
    numbers = sorted(set(windows))
    kept, sizes = [], []
    for c in numbers:
        inside = [i for i in audio if int(tokens.chunk[i]) == c]
        kept.append(sum(i in carried for i in inside) / len(inside) if inside else None)
        sizes.append(sum(len(f) for f, w in zip(frames, windows, strict=True) if w == c))
    if seen:
        rates = dict(zip(numbers, window_rates(kept, sizes, 1 - seen / len(video)), strict=True))
        quotas = plain.whole_numbers(
            [1 - rates[w] for w in windows], [len(f) for f in frames], seen
        )
        chosen = plain.paired_frames(embeds, frames, windows, quotas, density_peaks)
        carried |= {i: embeds[i] for i in chosen}
    return carried


def check_equal(view, entry, carried):
    """The same survivors, carrying the same."""
    assert entry.keep.tolist() == sorted(carried)
    mine = entry.take(view.embeds)
    wanted = torch.tensor([carried[i] for i in sorted(carried)])
    torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("budget", [0.07, 0.2, 0.35, 0.45, 0.6, 0.9])
@pytest.mark.parametrize("grids", [1, 2, 3])
def test_survivors_are_those_of_the_plain_reading(grids, budget):
    for seed in range(2):
        view = entry_view(clip(chunks=5, grids=grids, height=3, width=4, audio=9), seed)
        method = OmniZip(budget=budget)
        plan = method.plan(view.tokens, 8)
        count = plan.counts[0]
        heard = plain.quota_on_path(45, 60 * grids, count, PATH)
        assert (plan.settings["audio_kept"], plan.settings["video_kept"]) == (heard, count - heard)
        check_equal(view, method.enter(view, plan), slow_omnizip(view, heard, count - heard))


def test_windows_without_sound_have_the_rate_of_the_clip():
    """Sound ends after three of six chunks."""
    tokens = clip(chunks=6, grids=2, height=4, width=4, audio=10)
    view = entry_view(tokens.select(tokens.video | (tokens.chunk < 3)))
    method = OmniZip(budget=0.4)
    plan = method.plan(view.tokens, 8)
    heard = plan.settings["audio_kept"]
    check_equal(view, method.enter(view, plan), slow_omnizip(view, heard, plan.counts[0] - heard))


def test_more_of_the_picture_where_more_is_heard():
    tokens = clip(chunks=6, grids=2, height=6, width=6, audio=20)
    view = entry_view(tokens)
    view.audio_attention[:20] += 1.0  # the first chunk is the loud one
    method = OmniZip(budget=0.45)
    entry = method.enter(view, method.plan(tokens, 8))
    survivors = tokens.select(entry.keep)
    by_chunk = torch.bincount(survivors.chunk[survivors.video], minlength=6)
    assert int(by_chunk[0]) > int(by_chunk[1:].max())


@pytest.mark.parametrize(
    ("name", "rho_a", "rho_v", "share"),
    [("omnizip-45", 0.3, 0.6, 0.45), ("omnizip-35", 0.4, 0.7, 0.35)],
)
def test_paper_presets(name, rho_a, rho_v, share):
    """One token in seven is audio, as in Qwen2.5-Omni at the paper's resolution."""
    view = entry_view(clip(chunks=10, grids=2, height=10, width=6, audio=20))
    method = OmniZip.presets()[name]
    assert (method.rho_a, method.rho_v, method.contextual, method.group) == (rho_a, rho_v, 0.05, 3)
    plan = method.plan(view.tokens, 28)
    heard = round((1 - rho_a) * 200) + 10
    seen = round((1 - rho_v) * 1200)
    assert plan.counts == (heard + seen,) * 28
    assert plan.realised == pytest.approx(share, abs=1e-3)
    entry = method.enter(view, plan)
    assert len(entry.keep) == heard + seen
    assert int(view.tokens.audio[entry.keep].sum()) == heard
    solved = OmniZip(budget=share).plan(view.tokens, 28)
    assert solved.settings["audio_kept"] == pytest.approx(heard, abs=1)


def test_given_rates_set_the_share_of_audio():
    tokens = clip(chunks=5, grids=2, height=6, width=6, audio=20)
    plan = OmniZip(budget=0.2, rho_a=0.7, rho_v=0.7).plan(tokens, 8)
    want = plain.quota_on_path(100, 360, plan.counts[0], [(0, 0), (0.35, 0.3), (1, 1)])
    assert plan.settings["audio_kept"] == want


@pytest.mark.parametrize(
    "fields",
    [{"rho_a": 0.3}, {"rho_v": 0.3}, {"solve": False}, {"rho_a": 2, "rho_v": 0.1}, {"group": -1}],
)
def test_settings_that_cannot_be_meant(fields):
    with pytest.raises(UsageError):
        OmniZip(**fields)


def test_anchors_keep_dtype_and_size():
    view = entry_view(clip(chunks=8, audio=30), width=32)
    view = replace(view, embeds=view.embeds.to(torch.bfloat16))
    method = OmniZip(budget=0.35)
    entry = method.enter(view, method.plan(view.tokens, 8))
    carried = entry.take(view.embeds)
    assert carried.dtype == torch.bfloat16
    changed = (carried != view.embeds[entry.keep]).any(1)
    assert 0 < int(changed.sum()) <= 12  # 0.05 of 240
    assert bool(view.tokens.audio[entry.keep[changed]].all())
    norms = carried[changed].float().norm(dim=1)
    assert float(norms.min()) > 0
    assert float(norms.max()) <= float(view.embeds.float().norm(dim=1).max())


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.data())
def test_apportion_is_exact_and_within_each_frame(sizes, data):
    shares = data.draw(st.lists(st.floats(0, 1), min_size=len(sizes), max_size=len(sizes)))
    count = data.draw(st.integers(0, sum(sizes)))
    got = apportion(torch.tensor(shares, dtype=torch.float64), torch.tensor(sizes), count)
    assert int(got.sum()) == count
    assert all(0 <= n <= size for n, size in zip(got.tolist(), sizes, strict=True))


@given(st.integers(0, 300), st.integers(0, 3000), st.data())
def test_audio_quota_leaves_both_modalities_a_token(audio, video, data):
    count = data.draw(st.integers(0, audio + video))
    quota = audio_quota(audio, video, count, tuple(PATH))
    assert 0 <= quota <= audio
    assert 0 <= count - quota <= video
    if audio and video and count >= 2:
        assert 0 < quota < count
