"""Every method's defaults and presets beside the numbers that its paper or public code prints.

Written from the papers, not from the classes: a default that drifts fails here by name.
"""

from __future__ import annotations

import pytest

from omnidrop.pruning.methods.seats import TEMPERATURES
from omnidrop.pruning.parts import rank_stability as turning
from omnidrop.pruning.registry import get_method, presets
from omnidrop.testing.simulate import clip

#: Six tokens of video to one of sound, as Qwen2.5-Omni makes them at the papers' resolution.
USUAL = clip(chunks=20, grids=2, height=10, width=15, audio=50)

DEFAULTS = {
    "omnidrop": {
        "beta": 20,
        "diversity": 0.2,
        "audio_keep": 0.7,
        "video_prune": 0.8,
        "video_group": 4,
    },
    "seats": {"scale": 1.4, "grids": 2, "temperature": None, "cache": "cut"},
    "omnifocus": {"least": 0.35, "most": 0.75, "association": 0.5},
    "omnipack": {
        "at": 18 / 28,
        "keeps": 0.5,
        "important": (0.25, 0.35),
        "distance": 0.2,
        "neighbours": 7,
        "cache": "cut",
    },
    "omnizip": {"contextual": 0.05, "group": 3, "neighbours": 5},
    "dash": {"threshold": 0.4, "shortest": 30, "guidance": 0.1, "contextual": 0.05, "group": 3},
    "dycoke": {"prune": 0.7, "group": 4},
    "omnisift": {"rho_a": 0.3, "rho_v": 0.7},
    "visionzip": {"contextual": 10 / 64},
    "divprune": {"scope": "clip"},
    "fastv": {"after": 2},
    "pyramiddrop": {"stages": (0.25, 0.5, 0.75)},
    "sparsevlm": {"stages": (3 / 32, 7 / 32, 16 / 32), "recycle": 0.3, "cluster": 10},
}

#: Preset → layers of the paper's model, and the mean over the layers that the paper states or that
#: follows from its constants.
MEANS = {
    "paper-7b-30": (28, 0.302),
    "paper-7b-20": (28, 0.217),
    "paper-3b-30": (36, 0.302),
    "paper-3b-20": (36, 0.214),
    "scaled-30b-30": (48, 0.302),
    "scaled-30b-20": (48, 0.217),
    "seats-35": (28, 0.35),
    "seats-25": (28, 0.25),
    "seats-15": (28, 0.15),
    "seats-10": (28, 0.10),
    "omnifocus-35": (28, 0.35),
    "omnifocus-25": (28, 0.25),
    "omnipack-25": (28, 0.25 * 23 / 28),
    "omnipack-20": (28, 0.20 * 23 / 28),
    "omnipack-15": (28, 0.15 * 23 / 28),
    "omnipack-10": (28, (0.06 * 6 + 0.35) / 7 * 23 / 28),
    "omnizip-45": (28, 0.45),
    "omnizip-35": (28, 0.35),
    "dash-29": (28, (0.6 * 1 + 0.24 * 6) / 7),
    "dycoke-p70": (28, (1 + 0.475 * 6) / 7),
    "pyramiddrop-paper": (32, (1 + 1 / 2 + 1 / 4 + 1 / 8) / 4),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_the_published_numbers(name):
    settings = get_method(name).settings()
    assert {key: settings[key] for key in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("name", MEANS)
def test_presets_come_to_the_published_means(name):
    layers, mean = MEANS[name]
    assert presets()[name].plan(USUAL, layers).realised == pytest.approx(mean, abs=2e-3)


def test_seats_keeps_the_published_shares_at_its_three_steps():
    plan = presets()["seats-25"].plan(USUAL, 28)
    counts = plan.counts
    assert counts[23:] == (0,) * 5
    steps = [counts[at] / counts[at - 1] for at in (16, 18, 20)]
    assert steps == pytest.approx([0.930, 0.795, 0.299], abs=2e-3)
    assert presets()["seats-25"].depths(48) == ((27, 31, 35), 39)
    assert TEMPERATURES == {28: 0.1, 48: 0.3}


def test_fastv_sees_everything_for_two_layers():
    counts = get_method("fastv", budget=0.3).plan(USUAL, 32).counts
    assert counts == (7000,) * 2 + (round(7000 * (0.3 * 32 - 2) / 30),) * 30


def test_sparsevlm_drops_after_the_published_layers():
    counts = get_method("sparsevlm", budget=0.4).plan(USUAL, 32).counts
    assert [i for i in range(31) if counts[i + 1] < counts[i]][:3] == [2, 6, 15]


def test_asl_watches_eight_layers_for_three_tenths():
    assert (turning.window(32), turning.THRESHOLD) == (8, 0.3)


def test_echoingpixels_gives_time_the_lowest_frequencies():
    from omnidrop.pruning.parts.refiner import LAYERS, SHARE
    from omnidrop.rotary import sync_sections

    assert (LAYERS, SHARE) == (4, 0.2)
    assert sync_sections(64) == (18, 18, 18, 10)
