"""Compositions: one budget, settings by part, what does not fit, and the same tokens as ever."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from omnidrop.errors import BudgetError, UsageError
from omnidrop.evaluation.calibrate.grid import ranges_of
from omnidrop.pruning.compose import Compose
from omnidrop.pruning.method import Method
from omnidrop.pruning.methods.fastv import FastV
from omnidrop.pruning.methods.omnidrop import OmniDrop
from omnidrop.pruning.methods.omnizip import OmniZip
from omnidrop.pruning.methods.random import Random
from omnidrop.pruning.methods.uniform import Uniform
from omnidrop.pruning.presets import Preset
from omnidrop.pruning.registry import get_method
from omnidrop.testing.methods import check_method
from omnidrop.testing.simulate import clip, clip_of, prefill

LONG = clip(chunks=12, grids=2, height=5, width=7, audio=25)


def digest(run) -> str:
    """Return a short name for everything that entered every layer."""
    found = hashlib.sha1(repr(run.plan.counts).encode())
    for alive in run.survivors:
        found.update(alive.numpy().tobytes())
    return found.hexdigest()[:12]


@pytest.mark.parametrize(
    ("name", "settings", "kept"),
    [
        ("uniform+omnidrop", {}, "54a73cdad038"),
        ("uniform+omnidrop", {"entry_ratio": 0.6, "diversity": 0.1}, "ee853680f771"),
        ("uniform+omnidrop", {"turning": "asl"}, "237b006a76f2"),
        ("none+omnidrop", {"schedule": "step"}, "a357f991a603"),
        ("random+random@omnidrop", {}, "83e8062cd271"),
        ("random+random@omnidrop", {"schedule": "step"}, "f71aa4a25167"),
        ("uniform+uniform@omnidrop-auto", {}, "01a08a96e9a8"),
    ],
)
def test_they_keep_what_the_settings_before_them_kept(name, settings, kept):
    """Fixed values, made when these were `omnidrop --set entry=uniform` and the like."""
    run = prefill(get_method(name, budget=0.3, **settings), LONG, 28, seed=3)
    assert digest(run) == kept


def test_the_schedule_says_how_many_and_the_entry_which():
    composed, alone = get_method("uniform+omnidrop", budget=0.2), OmniDrop(budget=0.2)
    assert composed.plan(LONG, 28) == alone.plan(LONG, 28)
    entered = prefill(composed, LONG, 28).survivors[0]
    count = len(entered)
    flat = Uniform(budget=count / len(LONG))
    assert torch.equal(entered, prefill(flat, LONG, 28).survivors[0])


def test_where_the_schedule_lets_all_in_both_keep_the_same_share():
    plan = get_method("divprune+fastv", budget=0.25).plan(clip_of(1000), 28)
    assert plan.counts[:2] == (500, 500)
    assert plan.settings["enters"] == 0.5
    assert plan.realised == pytest.approx(0.25, abs=0.001)
    given = get_method("divprune+fastv", budget=0.25, enters=0.8).plan(clip_of(1000), 28)
    assert given.counts[0] == 800
    assert given.realised == pytest.approx(0.25, abs=0.001)
    assert get_method("none+fastv", budget=0.25).plan(clip_of(1000), 28).counts == (
        FastV(budget=0.25).plan(clip_of(1000), 28).counts
    )


def test_a_low_budget_lets_fewer_in_than_its_root():
    """PyramidDrop's first quarter of the layers sees whatever entered."""
    plan = get_method("uniform+pyramiddrop", budget=0.03).plan(clip_of(1000), 28)
    assert plan.realised == pytest.approx(0.03, abs=0.01)
    assert plan.counts[0] < round(1000 * 0.03**0.5)


@pytest.mark.parametrize(("name", "most"), [("uniform+omnidrop", 0.5), ("uniform+fastv", 0.5)])
def test_what_enters_bounds_the_budget(name, most):
    tokens = clip_of(1000)
    with pytest.raises(BudgetError) as caught:
        get_method(name, budget=0.8, enters=0.5).plan(tokens, 28)
    assert caught.value.reachable[1] == pytest.approx(most)
    for end in caught.value.reachable:
        plan = get_method(name, budget=end, enters=0.5).plan(tokens, 28)
        assert plan.realised == pytest.approx(end, abs=0.01)
        assert plan.counts[0] == 500


def test_enters_is_the_share_that_enters():
    plan = get_method("uniform+omnidrop", budget=0.3, enters=0.8).plan(clip_of(1000), 28)
    assert plan.counts[0] == 800
    assert plan == get_method("omnidrop", budget=0.3, entry_ratio=0.8).plan(clip_of(1000), 28)


def test_settings_make_the_same_composition_again():
    for name, fields in (
        ("uniform+omnidrop", {"t_mid": 0.4, "cache": "cut"}),
        ("omnidrop+omnidrop-auto", {"entry.audio_keep": 0.5, "layers.rows": "last"}),
        ("visionzip+seats", {"layers.after": (0.4, 0.6)}),
        ("dash+fastv", {"enters": 0.7, "entry.group": 2}),
        ("random+random@omnidrop", {"schedule": "step"}),
    ):
        made = get_method(name, budget=0.3, **fields)
        settings = json.loads(json.dumps(made.settings()))
        assert get_method(name, **settings) == made
        assert made.name == name
        assert made.label == f"{name} 0.3"
        assert Preset(name, (0.3, 0.5), fields).at() == made
        assert replace(made, budget=0.5) == Preset(name, (0.3, 0.5), fields).at(0.5)
        assert len({made, get_method(name, **settings)}) == 1


def test_only_settings_that_act_are_there():
    known = get_method("omnidrop+omnidrop-auto").settings()
    assert [key for key in known if key.startswith("entry.")] == [
        "entry.audio_keep",
        "entry.video_prune",
        "entry.video_group",
    ]
    assert "layers.lead" in known
    assert "layers.lead" not in get_method("uniform+omnidrop-auto@omnidrop").settings()
    assert list(get_method("uniform+random@omnidrop").settings())[:3] == [
        "budget",
        "cache",
        "enters",
    ]


def test_caches_are_treated_as_by_the_method_of_the_layers():
    assert get_method("uniform+seats").cache == "cut"
    assert get_method("uniform+seats", cache="own").cache == "own"
    assert get_method("uniform+omnidrop").cache == "own"
    assert get_method("uniform+omnidrop", cache="cut").cache == "cut"


def test_the_entry_needs_what_it_needs_and_the_layers_ask_the_question():
    assert get_method("visionzip+omnidrop").wants == {"video attention"}
    assert get_method("uniform+seats").wants == frozenset()  # only its own entry wants that
    assert not get_method("uniform+omnidrop").question_free
    assert get_method("visionzip+random@omnidrop").question_free


def test_what_can_be_tuned_is_what_the_parts_offer():
    found = ranges_of("omnizip+omnidrop")
    assert {"entry.contextual", "layers.t_mid", "layers.entry_ratio"} <= set(found)
    assert "layers.entry_ratio" not in ranges_of("none+omnidrop")
    assert "enters" in ranges_of("uniform+fastv")


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("uniform+", {}, "no composition"),
        ("a+b+c", {}, "no composition"),
        ("uniform+omnidrop@", {}, "no composition"),
        ("omnidrop@uniform", {}, "no composition"),
        ("unifrm+omnidrop", {}, "no method 'unifrm'.*Did you mean uniform"),
        ("uniform+omnidrop@none", {}, "'none' has no schedule"),
        ("uniform+uniform", {}, "no schedule over the layers.*uniform.uniform@omnidrop"),
        ("fastv+omnidrop", {}, "'fastv' cannot be the entry"),
        ("uniform+divprune", {}, "'divprune' cannot choose inside"),
        ("omnizip+omnidrop", {"solve": True, "entry.solve": True}, "Two parts.*entry.solve"),
        ("dycoke+fastv", {"solve": False}, "'dycoke' cannot be the entry.*fix how many"),
        ("uniform+omnidrop", {"audio_keep": 0.5}, "no setting 'audio_keep'"),
        ("uniform+omnidrop", {"layers.audio_keep": 0.5}, "does nothing in"),
        ("uniform+omnidrop", {"layers.budget": 0.5}, "no setting 'layers.budget'"),
        ("uniform+omnidrop", {"middle.rows": "last"}, "no setting 'middle.rows'"),
        ("uniform+omnidrop", {"enters": 0.5, "entry_ratio": 0.6}, "entry_ratio cannot be 0.6"),
        ("none+omnidrop", {"entry_ratio": 0.6}, "entry_ratio cannot be 0.6"),
        ("none+omnidrop-auto", {}, "says itself how many"),
        ("uniform+seats", {"enters": 0.5}, "says itself how many"),
        ("uniform+sparsevlm@omnidrop", {}, "with its own schedule only"),
        ("uniform+omnidrop", {"enters": 2}, "enters cannot be 2"),
        ("uniform+omnidrop", {"cache": "burn"}, "Unknown cache 'burn'"),
        ("uniform+omnidrop", {"budget": 0}, "above 0"),
    ],
)
def test_what_does_not_fit_is_explained(name, fields, message):
    with pytest.raises(UsageError, match=message):
        get_method(name, **{"budget": 0.3, **fields})


@pytest.mark.parametrize(
    ("name", "fields", "now"),
    [
        ("omnidrop", {"entry": "uniform"}, r"--method uniform\+omnidrop\."),
        ("omnidrop", {"entry": None}, r"--method none\+omnidrop\."),
        ("uniform+omnidrop", {"entry": "paper"}, "--method omnidrop, without an entry"),
        ("uniform+omnidrop", {"layers.entry": "none"}, r"--method none\+omnidrop\."),
        ("random", {"schedule": "sigmoid"}, "--method random.random@omnidrop"),
        ("random", {"schedule": "step"}, "with schedule=step"),
        ("random", {"schedule": "round"}, "random.random@omnidrop .sigmoid."),
        ("omnidrop-auto", {"choice": "even"}, "--method uniform.uniform@omnidrop-auto"),
    ],
)
def test_former_settings_name_the_composition(name, fields, now):
    with pytest.raises(UsageError, match=now):
        get_method(name, budget=0.3, **fields)


def test_entry_methods_have_no_cache_to_set():
    for name in ("uniform", "random", "divprune", "dycoke", "omnizip", "dash", "visionzip", "none"):
        with pytest.raises(UsageError, match="no setting 'cache'"):
            get_method(name, cache="cut")


def test_parts_have_no_budget_of_their_own():
    with pytest.raises(UsageError, match="has one budget"):
        Compose(entry=Uniform(budget=0.5), layers=OmniDrop(budget=0.3), budget=0.3)
    made = Compose(entry=Uniform(), layers=OmniDrop(budget=0.3), budget=0.3)
    assert made == get_method("uniform+omnidrop", budget=0.3)
    assert replace(made, budget=0.5).budget == 0.5


def test_python_and_names_mean_the_same():
    made = Compose(0.3, entry=Random(), layers=Random(), schedule=OmniDrop(schedule="step"))
    assert made == get_method("random+random@omnidrop", budget=0.3, schedule="step")
    assert Compose(0.3, entry=Method(), layers=OmniDrop()).name == "none+omnidrop"
    with pytest.raises(UsageError, match="'omnizip' cannot be the entry"):
        Compose(0.3, entry=OmniZip(rho_a=0.3, rho_v=0.6, solve=False), layers=OmniDrop())


@pytest.mark.parametrize("name", ["uniform+omnidrop", "omnizip+sparsevlm"])
def test_a_composition_is_a_method(name):
    check_method(lambda **settings: get_method(name, **settings), tunable=False)
