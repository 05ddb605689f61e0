"""OmniDrop itself: the paper's constants, the entry reduction, relevance and diversity."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from omnidrop.errors import BudgetError, UsageError
from omnidrop.pruning.method import Plan
from omnidrop.pruning.methods.omnidrop import OmniDrop
from omnidrop.pruning.registry import get_method, get_preset, presets
from omnidrop.testing.simulate import View, clip, entry_view, prefill

# As the paper samples: 2 grids of 128 tokens and 50 audio tokens per 2 s, 10 minutes of them.
PAPER_CLIP = clip(chunks=100, grids=2, height=8, width=16, audio=50)


@pytest.mark.parametrize(
    ("name", "layers", "mean", "start"),
    [
        ("paper-7b-30", 28, 0.302, 14),
        ("paper-7b-20", 28, 0.217, 14),
        ("paper-3b-30", 36, 0.302, 19),
        ("paper-3b-20", 36, 0.214, 19),
    ],
)
def test_presets_are_the_papers(name, layers, mean, start):
    method = get_preset(name)
    assert isinstance(method, OmniDrop)
    plan = method.plan(PAPER_CLIP, layers)
    assert plan.realised == pytest.approx(mean, abs=6e-4)
    assert plan.counts[0] == round(0.45 * len(PAPER_CLIP))
    assert plan.settings["solved"] is False
    assert ("note" in plan.settings) == name.endswith("20")  # 0.217 and 0.214 are not 0.2
    assert (method.diversity, method.diversity_from, method.diversity_form) == (0.2, start, "raw")
    assert method == OmniDrop.paper(name[6:8], int(name[-2:]) / 100)
    assert presets()[name] == method


def test_paper_mix_of_sound_and_picture_enters_as_printed():
    """At the paper's sampling 70 % of the audio and 40 % of the video are 45 % of the whole."""
    method = OmniDrop.paper("7B", 0.3)
    keep = prefill(method, PAPER_CLIP, 28).survivors[0]
    entered = PAPER_CLIP.select(keep)
    audio = int(entered.audio.sum()) / int(PAPER_CLIP.audio.sum())
    video = int(entered.video.sum()) / int(PAPER_CLIP.video.sum())
    assert audio == pytest.approx(0.70, abs=0.005)
    assert video == pytest.approx(0.40, abs=0.005)


def test_unknown_presets():
    with pytest.raises(UsageError, match="no schedule for 7B"):
        OmniDrop.paper("7B", 0.4)
    with pytest.raises(UsageError, match="paper-7b-30"):
        get_preset("paper-7b-31")


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule": "linear"},
        {"rows": "first"},
        {"diversity_form": "odd"},
        {"entry_ratio": 1.2},
        {"p_init": -0.1},
        {"p_final": 2},
        {"audio_keep": 0},
        {"video_prune": 1.5},
        {"video_group": 0},
        {"diversity": -1},
        {"diversity_from": -2},
        {"beta": 0},
        {"beta": float("inf")},
        {"diversity": float("nan")},
        {"diversity": "a lot"},
        {"diversity_from": 14.0},
        {"diversity_from": "half"},
        {"p_final": True},
        {"video_group": 2.5},
        {"t_mid": "early"},
        {"solve": "no"},
        {"solve": False},
        {"solve": False, "p_init": 0.0, "p_final": 0.2, "t_mid": 0.5},
        {"cache": "burn"},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        OmniDrop(**{"budget": 0.3, **wrong})


def test_without_entry_everything_enters():
    method = get_method("none+omnidrop", budget=0.3)
    run = prefill(method, PAPER_CLIP, 28)
    assert run.plan.counts[0] == len(PAPER_CLIP)
    assert run.entry.mix is None
    constants = {"p_init": 0.0, "p_final": 0.2, "t_mid": 0.5, "solve": False, "entry_ratio": 1.0}
    assert get_method("none+omnidrop", **constants).plan(PAPER_CLIP, 28).realised > 0.6
    with pytest.raises(BudgetError):
        replace(method, budget=0.02).plan(PAPER_CLIP, 8)


def entered(tokens, count, **changes):
    """Let `count` tokens enter; return the view, the entry, and what became of each modality."""
    view = replace(entry_view(tokens), **{k: changes.pop(k) for k in list(changes) if k in VIEW})
    method = OmniDrop(budget=0.3, **changes)
    entry = method.enter(view, Plan(len(tokens), (count,) * 4))
    assert len(entry.keep) == count
    return view, entry, tokens.select(entry.keep)


VIEW = ("embeds", "audio_attention")


def test_audio_is_ranked_by_encoder_attention():
    tokens = clip(chunks=2, grids=0, audio=5)
    heard = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3, 0.3, 0.7, 0.3, 0.0, 0.6])
    _, entry, _ = entered(tokens, 5, audio_attention=heard)
    assert entry.keep.tolist() == [1, 3, 4, 6, 9]  # of the three at 0.3 the earliest
    assert entry.mix is None
    _, entry, _ = entered(tokens, 5, audio_attention=None)
    assert entry.keep.tolist() == [1, 3, 5, 7, 9]


def test_video_merges_what_repeats_itself():
    tokens = clip(chunks=2, grids=2, height=1, width=5, audio=0)  # one group of four grids
    draw = torch.Generator().manual_seed(0)
    scene = torch.randn(5, 8, generator=draw)
    embeds = scene.repeat(4, 1)
    embeds[5 + 2] = -scene[2]  # in each later grid one cell differs from the first grid
    embeds[10 + 0] = -scene[0]
    embeds[15 + 4] = -scene[4]
    embeds[15 + 1] = 3 * scene[1]  # same direction: merged, and its size counts in the mean
    view, entry, _ = entered(tokens, 8, embeds=embeds)  # (1 + 3 · 0.2) / 4 = 40 % of 20
    assert entry.keep.tolist() == [0, 1, 2, 3, 4, 7, 10, 19]
    want = embeds[entry.keep].clone()
    want[1] = scene[1] * (1 + 1 + 1 + 3) / 4
    torch.testing.assert_close(entry.take(view.embeds), want)


def test_each_later_grid_keeps_the_same_share():
    tokens = clip(chunks=6, grids=2, height=5, width=5, audio=0)
    _, _, kept = entered(tokens, round(0.4 * len(tokens)))
    per_grid = torch.bincount(kept.grid[:, 0].long(), minlength=12).tolist()
    assert per_grid == [25, 5, 5, 5] * 3


def test_merged_embeddings_are_means_of_everything():
    """Nothing is lost: kept tokens, weighted by what they stand for, sum to the whole."""
    tokens = clip(chunks=4, grids=2, height=2, width=3, audio=0)
    view, entry, _ = entered(tokens, 20)
    group = tokens.grid[:, 0] // 4
    place = tokens.grid[:, 1] * 3 + tokens.grid[:, 2]
    kept = torch.zeros(len(tokens), dtype=torch.bool)
    kept[entry.keep] = True
    first = tokens.grid[:, 0] % 4 == 0
    weight = torch.ones(len(tokens))
    for i in first.nonzero().flatten().tolist():
        weight[i] += ((group == group[i]) & (place == place[i]) & ~kept).sum()
    total = (entry.take(view.embeds) * weight[entry.keep, None]).sum(0)
    torch.testing.assert_close(total, view.embeds.sum(0), rtol=1e-4, atol=1e-4)


def test_groups_grow_when_few_may_enter():
    tokens = clip(chunks=16, grids=2, height=3, width=3, audio=0)  # 32 grids of 9 cells
    _, entry, kept = entered(tokens, 30)  # groups of 4 would anchor 72, of 8 36, of 16 18
    whole = torch.bincount(kept.grid[:, 0].long(), minlength=32)
    assert (whole == 9).nonzero().flatten().tolist() == [0, 16]
    assert int((whole > 0).sum()) > 10
    assert entry.mix is not None


def test_one_grid_is_thinned_evenly():
    tokens = clip(chunks=1, grids=1, height=4, width=6, audio=0)
    _, entry, _ = entered(tokens, 6)
    assert entry.keep.tolist() == [2, 6, 10, 14, 18, 22]
    assert entry.mix is None
    tokens = clip(chunks=2, grids=2, height=4, width=6, audio=0)
    _, entry, kept = entered(tokens, 6)
    assert set(kept.grid[:, 0].tolist()) == {0}
    assert entry.mix is not None  # what repeats a kept cell is merged into it


def test_cells_missing_from_the_first_grid_stand_for_themselves():
    tokens = clip(chunks=2, grids=2, height=2, width=2, audio=0)
    tokens = tokens.select(torch.arange(1, 16))  # the first cell of the first grid is gone
    _, entry, _ = entered(tokens, 8)
    assert {0, 1, 2, 3} <= set(entry.keep.tolist())  # 3: the same cell, one grid later


@pytest.mark.parametrize(
    ("count", "audio", "video"),
    [(3, 1, 2), (2, 1, 1), (18, 5, 13), (40, 11, 29), (1, 0, 1), (114, 20, 94), (116, 20, 96)],
)
def test_both_modalities_share_one_factor(count, audio, video):
    tokens = clip(chunks=2, grids=4, height=3, width=4, audio=10)  # 20 audio, 96 video
    _, _, kept = entered(tokens, count)
    assert (int(kept.audio.sum()), int(kept.video.sum())) == (audio, video)


def test_a_single_token_may_be_sound():
    tokens = clip(chunks=2, grids=1, height=1, width=1, audio=10)
    _, entry, kept = entered(tokens, 1)
    assert bool(kept.audio.all())
    assert entry.mix is None


def test_low_precision_embeddings_stay_low_precision():
    tokens = clip()
    view = entry_view(tokens)
    view = replace(view, embeds=view.embeds.bfloat16())
    entry = OmniDrop().enter(view, Plan(len(tokens), (40, 40)))
    assert entry.take(view.embeds).dtype == torch.bfloat16


class Asked(View):
    """A view that remembers which rows were asked for."""

    def attention(self, rows):
        """Remember and answer."""
        self.rows = rows
        return self.scores


def layer_view(scores, layer=20, layers=28, chunks=None):
    tokens = clip(chunks=len(scores), grids=0, audio=1)
    if chunks is not None:
        tokens = replace(tokens, chunk=torch.tensor(chunks, dtype=torch.int32))
    return Asked(layer, layers, tokens, torch.Generator(), torch.tensor(scores))


@pytest.mark.parametrize("rows", ["question", "last", "all-text"])
def test_rows_are_asked_for(rows):
    view = layer_view([0.1, 0.3, 0.2])
    assert OmniDrop(rows=rows, diversity=0).keep(view, 2).tolist() == [1, 2]
    assert view.rows == rows


def test_diversity_starts_where_it_should():
    scores, chunks = [0.9, 0.10, 0.11, 0.12, 0.13], [0, 4, 0, 0, 0]
    for start, layers, first in ((14, 28, 14), (0.5, 28, 14), (0.5, 36, 18), (0, 28, 0)):
        method = OmniDrop(diversity_from=start, diversity_form="raw")
        for layer in range(layers - 1):
            kept = method.keep(layer_view(scores, layer, layers, chunks), 3).tolist()
            assert kept == ([0, 1, 4] if layer >= first else [0, 3, 4])


def test_forms_of_diversity_differ():
    scores, chunks = [9e-3, 1e-4, 9e-4, 8e-4, 2e-4], [0, 4, 1, 1, 1]
    raw = OmniDrop(diversity_form="raw").keep(layer_view(scores, chunks=chunks), 3)
    scaled = OmniDrop().keep(layer_view(scores, chunks=chunks), 3)
    assert raw.tolist() == [0, 1, 2]
    assert scaled.tolist() == [0, 2, 3]
