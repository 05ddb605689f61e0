"""OmniRoute against a plain-loop reading of what is published, and of what we chose."""

from __future__ import annotations

import math
from dataclasses import replace

import plain
import pytest
import torch
from test_omnizip import density_peaks

from omnidrop.errors import UsageError
from omnidrop.pruning.method import Need
from omnidrop.pruning.methods.omniroute import OmniRoute
from omnidrop.pruning.registry import get_method
from omnidrop.testing.simulate import clip, entry_view, prefill
from omnidrop.tokens import Kind


def mean(rows):
    """Mean of lists of numbers."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def chunks_of(tokens, kind):
    """Token indices of one kind by chunk, for every chunk of the clip."""
    found = {int(c): [] for c in sorted(set(tokens.chunk.tolist()))}
    for i in plain.of_kind(tokens, kind):
        found[int(tokens.chunk[i])].append(i)
    return found


def lowest_to_highest(values):
    """Scale to [0, 1]; a half where all are the same."""
    low, high = min(values), max(values)
    return [0.5 if high - low < 1e-6 else (v - low) / (high - low) for v in values]


def changes(embeds, by_chunk, before):
    """g of each chunk: 0.7 inside, 0.3 between, scaled over those that have the modality."""
    there = [c for c in by_chunk if by_chunk[c]]
    centres = {c: mean([embeds[i] for i in by_chunk[c]]) for c in there}
    raw = {}
    for n, c in enumerate(there):
        pairs = [(i, before[i]) for i in by_chunk[c] if i in before]
        inside = sum(1 - plain.cosine(embeds[a], embeds[b]) for a, b in pairs)
        inside /= max(len(pairs), 1)
        between = 0.0
        if len(there) > 1:
            other = there[n - 1] if n else there[1]
            between = 1 - plain.cosine(centres[c], centres[other])
        raw[c] = 0.7 * inside + 0.3 * between
    g = lowest_to_highest(list(raw.values())) if raw else []
    return dict(zip(raw, g, strict=True))


def slow_omniroute(view, count):
    """Token by token: what stays, and what it carries."""
    tokens, embeds = view.tokens, view.embeds.double().tolist()
    asked = mean(view.question_embeds.double().tolist())
    heard, seen = chunks_of(tokens, Kind.AUDIO), chunks_of(tokens, Kind.VIDEO)
    frames = plain.frames_of(tokens)

    before = {}
    for rows in heard.values():
        before |= dict(zip(rows[1:], rows[:-1], strict=True))
    g_audio = changes(embeds, heard, before)
    before, odd = {}, []
    for f, rows in enumerate(frames):
        number = sum(tokens.chunk[r[0]] == tokens.chunk[rows[0]] for r in frames[:f])
        odd.append(number % 2 == 1)
        if number:
            before |= dict(zip(rows, frames[f - 1], strict=True))
    g_video = changes(embeds, seen, before)

    audio_rate, even_rate, odd_rate = {}, {}, {}
    base_v = (0.82 + 0.58) / 2 - 0.21 / 2
    for c in heard:
        lead = 1.0 if heard[c] else 0.0
        if heard[c] and seen[c]:
            d = plain.cosine(asked, mean([embeds[i] for i in heard[c]]))
            d -= plain.cosine(asked, mean([embeds[i] for i in seen[c]]))
            lead = 1 / (1 + math.exp(-d / 0.03))
        own_a = 0.3 + 0.09 * (0.5 - g_audio.get(c, 0.0))
        own_v = base_v + 0.21 * (0.5 - g_video.get(c, 0.0))
        actual_a = round(own_a * len(heard[c])) / max(len(heard[c]), 1)
        actual_v = round(own_v * len(seen[c])) / max(len(seen[c]), 1)
        audio_rate[c] = lead * own_a + (1 - lead) * (0.3 + 0.5 * (actual_v - base_v))
        video = lead * (base_v + 0.5 * (actual_a - 0.3)) + (1 - lead) * own_v
        even_rate[c] = min(max(video + (0.82 - 0.58) / 2, 0), 1)
        odd_rate[c] = min(max(video - (0.82 - 0.58) / 2, 0), 1)
        audio_rate[c] = min(max(audio_rate[c], 0), 1)

    audio, video = plain.of_kind(tokens, Kind.AUDIO), plain.of_kind(tokens, Kind.VIDEO)
    frame_chunk = [int(tokens.chunk[rows[0]]) for rows in frames]
    rates = [odd_rate[c] if o else even_rate[c] for c, o in zip(frame_chunk, odd, strict=True)]
    n_audio = count if audio else 0
    if audio and video:
        shares = [
            sum((1 - audio_rate[c]) * len(heard[c]) for c in heard) / len(audio),
            sum((1 - r) * len(f) for r, f in zip(rates, frames, strict=True)) / len(video),
        ]
        n_audio = plain.whole_numbers(shares, [len(audio), len(video)], count)[0]
        n_audio = min(max(n_audio, 1), count - 1)

    few = min(round(0.05 * len(audio)), n_audio // 2)
    sizes = [len(heard[c]) for c in heard]
    quotas = [0] * len(sizes)
    if audio:
        quotas = plain.whole_numbers([1 - audio_rate[c] for c in heard], sizes, n_audio - few)
    received = dict(zip(audio, view.audio_attention.tolist(), strict=True))
    carried = {}
    for c, quota in zip(heard, quotas, strict=True):
        rows = heard[c]
        carried |= {
            rows[n]: embeds[rows[n]] for n in plain.best([received[i] for i in rows], quota)
        }
    carried |= plain.merged_audio(embeds, audio, video, set(carried), few, 3)
    if count > n_audio:
        quotas = plain.whole_numbers(
            [1 - r for r in rates], [len(f) for f in frames], count - n_audio
        )
        kept = plain.paired_frames(embeds, frames, frame_chunk, quotas, density_peaks)
        carried |= {i: embeds[i] for i in kept}
    return carried


@pytest.mark.parametrize("budget", [0.1, 0.3, 0.45, 0.8])
@pytest.mark.parametrize(
    "shape",
    [
        {"chunks": 5, "grids": 2, "height": 3, "width": 4, "audio": 9},
        {"chunks": 3, "grids": 3, "height": 2, "width": 3, "audio": 20},
        {"chunks": 4, "grids": 1, "height": 3, "width": 3, "audio": 6},
        {"chunks": 4, "grids": 0, "audio": 11},
        {"chunks": 4, "grids": 2, "height": 3, "width": 3, "audio": 0},
    ],
    ids=["pairs", "three frames", "one frame", "audio only", "silent"],
)
def test_it_is_what_the_plain_loops_say(shape, budget):
    for seed in range(2):
        view = entry_view(clip(**shape), seed)
        method = OmniRoute(budget=budget)
        plan = method.plan(view.tokens, 12)
        entry = method.enter(view, plan)
        slow = slow_omniroute(view, plan.counts[0])
        assert entry.keep.tolist() == sorted(slow)
        expected = torch.tensor([slow[i] for i in sorted(slow)], dtype=torch.float64)
        torch.testing.assert_close(entry.take(view.embeds).double(), expected, atol=1e-5, rtol=1e-5)


def near(view, kind):
    """A view whose question is the mean of one modality's embeddings."""
    rows = view.embeds[view.tokens.kind == kind]
    return replace(view, question_embeds=rows.mean(0, keepdim=True))


def pushed_apart(seed=0):
    """A clip whose audio and video point in different directions, whatever the chunk."""
    view = entry_view(clip(chunks=4, grids=2, height=4, width=4, audio=12), seed)
    away = torch.zeros_like(view.embeds)
    away[view.tokens.audio, 0], away[view.tokens.video, 1] = 5.0, 5.0
    return replace(view, embeds=view.embeds + away)


def test_the_modality_nearer_to_the_question_leads():
    method = OmniRoute(budget=0.4)
    view = pushed_apart()
    from omnidrop.pruning.methods.omniroute import _Chunks

    for kind, weight in ((Kind.AUDIO, 1.0), (Kind.VIDEO, 0.0)):
        asked = near(view, kind)
        lead = method.lead(asked, _Chunks.of(asked))
        torch.testing.assert_close(lead, torch.full_like(lead, weight), atol=1e-3, rtol=0)


def test_another_question_keeps_other_tokens():
    method = OmniRoute(budget=0.4)
    view = pushed_apart()
    plan = method.plan(view.tokens, 12)
    one = method.enter(near(view, Kind.AUDIO), plan).keep
    two = method.enter(near(view, Kind.VIDEO), plan).keep
    assert len(one) == len(two)
    assert not torch.equal(one, two)


def test_the_leader_keeps_more_where_it_changes_and_the_follower_goes_along():
    method = OmniRoute(budget=0.4)
    ones = torch.ones(2, dtype=torch.float64)
    still, moving = torch.tensor([0.0, 1.0], dtype=torch.float64), 0.5 * ones
    sizes = torch.tensor([1000, 1000])
    audio, even, odd = method.rates(ones, still, moving, sizes, sizes)
    assert audio.tolist() == pytest.approx([0.345, 0.255])
    assert (even - even.mean()).tolist() == pytest.approx([0.0225, -0.0225])
    assert (even - odd).tolist() == pytest.approx([0.24, 0.24])
    audio, even, _ = method.rates(0 * ones, moving, still, sizes, sizes)
    assert even.tolist() == pytest.approx([0.82, 0.61])
    assert audio.tolist() == pytest.approx([0.3525, 0.2475])


def test_the_published_constants_keep_45_percent_where_one_token_in_seven_is_audio():
    """The reading of eta_s and eta_t that the docstring gives its reason for."""
    method, half = OmniRoute(), torch.full((1,), 0.5, dtype=torch.float64)
    sizes = torch.tensor([10**6])
    audio, even, odd = method.rates(half, half, half, sizes, sizes)
    kept = (1 - float(audio)) / 7 + (2 - float(even) - float(odd)) / 2 * 6 / 7
    assert kept == pytest.approx(0.45, abs=0.005)


def test_without_attention_audio_is_spaced_evenly():
    view = replace(entry_view(clip(chunks=2, grids=0, audio=10), 0), audio_attention=None)
    method = OmniRoute(budget=0.5, contextual=0, gamma_a=0)
    kept = method.enter(view, method.plan(view.tokens, 12)).keep
    assert kept.tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]


def test_it_asks_for_the_question_alone():
    assert OmniRoute.wants == {Need.QUESTION}
    assert not OmniRoute.question_free
    joined = get_method("omniroute+random@omnidrop", budget=0.3)
    assert joined.wants == {Need.QUESTION}
    assert not joined.question_free
    assert prefill(joined, clip(), 12).realised == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("settings", [{"tau": 3}, {"heat": 0}, {"inside": 1.1}, {"group": -1}])
def test_settings_have_bounds(settings):
    with pytest.raises(UsageError, match="cannot be"):
        OmniRoute(**settings)
