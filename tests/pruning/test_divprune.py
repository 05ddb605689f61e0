"""DivPrune and VisionZip, each against a plain-loop reading of its paper."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnidrop.errors import UsageError
from omnidrop.pruning.methods import divprune
from omnidrop.pruning.methods.divprune import DivPrune, max_min
from omnidrop.pruning.methods.visionzip import VisionZip
from omnidrop.testing.simulate import clip, entry_view
from omnidrop.tokens import Kind


def distance(a, b):
    """Cosine distance of two lists of numbers."""
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_max_min(rows, count):
    """Greedy max-min, one comparison at a time."""
    total = len(rows)
    chosen = []
    for _ in range(count):
        best, best_score = -1, -math.inf
        for i in range(total):
            if i in chosen:
                continue
            others = chosen or [j for j in range(total) if j != i]
            score = min((distance(rows[i], rows[j]) for j in others), default=0.0)
            if score > best_score:
                best, best_score = i, score
        chosen.append(best)
    return sorted(chosen)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 24), st.integers(2, 6), st.integers(0, 99), st.data())
def test_max_min_is_the_published_greedy(total, width, seed, data):
    count = data.draw(st.integers(0, total))
    embeds = torch.randn(total, width, generator=torch.Generator().manual_seed(seed))
    assert max_min(embeds, count).tolist() == slow_max_min(embeds.double().tolist(), count)


def test_max_min_in_blocks_and_row_by_row(monkeypatch):
    embeds = torch.randn(300, 12, generator=torch.Generator().manual_seed(3))
    whole = max_min(embeds, 90)
    monkeypatch.setattr(divprune, "_BLOCK", 7)
    assert torch.equal(max_min(embeds, 90), whole)
    monkeypatch.setattr(divprune, "_WHOLE", 0)
    assert torch.equal(max_min(embeds, 90), whole)


def test_max_min_takes_repeats_last():
    """Ten directions, each three times: the first ten picks are all different."""
    embeds = torch.eye(10).repeat(3, 1)
    assert {i % 10 for i in max_min(embeds, 10).tolist()} == set(range(10))
    assert len(set(max_min(embeds, 25).tolist())) == 25


def test_divprune_pools_audio_and_video():
    view = entry_view(clip())
    method = DivPrune(budget=0.3)
    plan = method.plan(view.tokens, 8)
    kept = method.enter(view, plan).keep.tolist()
    assert kept == slow_max_min(view.embeds.double().tolist(), plan.counts[0])


def test_divprune_chunk_by_chunk():
    view = entry_view(clip())
    method = DivPrune(budget=0.25, scope="chunk")
    plan = method.plan(view.tokens, 8)
    kept = method.enter(view, plan).keep.tolist()
    want = []
    before = 0
    for c in range(4):
        rows = [i for i in range(len(view.tokens)) if int(view.tokens.chunk[i]) == c]
        upto = math.floor((c + 1) * len(rows) * plan.counts[0] / plan.total + 0.5)
        picked = slow_max_min(view.embeds[rows].double().tolist(), upto - before)
        want += [rows[i] for i in picked]
        before = upto
    assert kept == want


@pytest.mark.parametrize("scope", ["frame", None, 1])
def test_divprune_refuses_an_unknown_scope(scope):
    with pytest.raises(UsageError, match="scope"):
        DivPrune(scope=scope)


def pictures(tokens):
    """Lists of token indices: each temporal grid, and each chunk of sound."""
    found = {}
    for i in range(len(tokens)):
        chunk = int(tokens.chunk[i])
        if int(tokens.kind[i]) == Kind.AUDIO:
            found.setdefault((chunk, 1, 0), []).append(i)
        else:
            found.setdefault((chunk, 0, int(tokens.grid[i, 0])), []).append(i)
    return [found[key] for key in sorted(found)]


def slow_visionzip(view, count, contextual):
    """VisionZip token by token: what stays, and what it carries."""
    tokens, total = view.tokens, len(view.tokens)
    seen = {}
    for kind, scores in ((Kind.AUDIO, view.audio_attention), (Kind.VIDEO, view.video_attention)):
        mine = [i for i in range(total) if int(tokens.kind[i]) == kind]
        seen |= dict(zip(mine, scores.tolist(), strict=True))
    carried = {}
    merging = round(contextual * count)
    passed = before = merged = 0
    for rows in pictures(tokens):
        passed += len(rows)
        upto = math.floor(passed * count / total + 0.5)
        merged_to = math.floor(upto * merging / count + 0.5)
        quota, few = upto - before, merged_to - merged
        before, merged = upto, merged_to
        ranked = sorted(rows, key=lambda i: -seen[i])
        dominant = ranked[: quota - few]
        for i in dominant:
            carried[i] = view.embeds[i].tolist()
        left = [i for i in rows if i not in dominant]
        targets = [left[n * (len(left) // few)] for n in range(few)]
        members = {t: [view.embeds[t].tolist()] for t in targets}
        for i in left:
            if targets and i not in targets:
                apart = [
                    distance(view.embeds[i].tolist(), view.embeds[t].tolist()) for t in targets
                ]
                members[targets[apart.index(min(apart))]].append(view.embeds[i].tolist())
        for t, rows_of in members.items():
            carried[t] = [sum(column) / len(rows_of) for column in zip(*rows_of, strict=True)]
    return carried


@pytest.mark.parametrize("budget", [0.1, 0.3, 0.55, 0.9])
@pytest.mark.parametrize("contextual", [0.0, 10 / 64, 0.5, 1.0])
def test_visionzip_is_the_published_reading(budget, contextual):
    for seed in range(3):
        view = entry_view(clip(chunks=3, grids=2, height=4, width=5, audio=11), seed)
        method = VisionZip(budget=budget, contextual=contextual)
        plan = method.plan(view.tokens, 8)
        entry = method.enter(view, plan)
        want = slow_visionzip(view, plan.counts[0], contextual)
        assert entry.keep.tolist() == sorted(want)
        carried = entry.take(view.embeds)
        expected = torch.tensor([want[i] for i in sorted(want)])
        torch.testing.assert_close(carried, expected, atol=1e-5, rtol=1e-5)


def test_visionzip_asks_for_what_it_reads():
    assert VisionZip.wants == {"video attention"}
    assert VisionZip().contextual == pytest.approx(10 / 64)


def test_visionzip_without_attention_spaces_evenly():
    view = replace(entry_view(clip()), audio_attention=None, video_attention=None)
    method = VisionZip(budget=0.5, contextual=0)
    kept = method.enter(view, method.plan(view.tokens, 4)).keep
    for rows in pictures(view.tokens):
        inside = [rows.index(i) for i in kept.tolist() if i in rows]
        assert len(inside) == len(rows) // 2
        assert max(b - a for a, b in pairwise(inside)) <= 3


def test_visionzip_means_keep_dtype_and_size():
    view = entry_view(clip(chunks=6, height=5, width=6))
    view = replace(view, embeds=view.embeds.to(torch.bfloat16))
    method = VisionZip(budget=0.3)
    entry = method.enter(view, method.plan(view.tokens, 8))
    carried = entry.take(view.embeds)
    assert carried.dtype == torch.bfloat16
    own = view.embeds[entry.keep]
    changed = (carried != own).any(1)
    assert float(changed.float().mean()) == pytest.approx(10 / 64, abs=0.02)
    norms = carried[changed].float().norm(dim=1)
    assert float(norms.max()) <= float(view.embeds.float().norm(dim=1).max()) + 1e-2
    assert float(norms.min()) > 0


def test_visionzip_merges_equal_tokens_into_finite_means():
    """Where every token is the same, so is every mean."""
    view = entry_view(clip(height=4, width=4))
    view.embeds.copy_(torch.arange(1.0, 9.0))
    method = VisionZip(budget=0.4, contextual=0.5)
    entry = method.enter(view, method.plan(view.tokens, 8))
    torch.testing.assert_close(entry.take(view.embeds), view.embeds[entry.keep])
