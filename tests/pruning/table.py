"""The one table of methods that every property runs over.

A registered method that is not in it fails `test_methods.py::test_every_method_is_in_the_table`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from audio_selectors import selector_folder
from predictors import predictor_folder
from refiners import refiner_folder

from omnidrop.pruning.method import Method
from omnidrop.pruning.methods.apack import APack
from omnidrop.pruning.methods.auto import OmniDropAuto
from omnidrop.pruning.methods.contextguard import ContextGuard
from omnidrop.pruning.methods.dash import Dash
from omnidrop.pruning.methods.divprune import DivPrune
from omnidrop.pruning.methods.dycoke import DyCoke
from omnidrop.pruning.methods.echoingpixels import EchoingPixels
from omnidrop.pruning.methods.evs import Evs
from omnidrop.pruning.methods.fastv import FastV
from omnidrop.pruning.methods.omnidrop import OmniDrop
from omnidrop.pruning.methods.omnifocus import OmniFocus
from omnidrop.pruning.methods.omnipack import OmniPack
from omnidrop.pruning.methods.omniroute import OmniRoute
from omnidrop.pruning.methods.omnisift import OmniSift
from omnidrop.pruning.methods.omnizip import OmniZip
from omnidrop.pruning.methods.pyramiddrop import PyramidDrop
from omnidrop.pruning.methods.random import Random
from omnidrop.pruning.methods.seats import Seats
from omnidrop.pruning.methods.sparsevlm import SparseVLM
from omnidrop.pruning.methods.uniform import Uniform
from omnidrop.pruning.methods.visionzip import VisionZip
from omnidrop.pruning.registry import get_method

Make = Callable[..., Method]


def composed(name: str, **settings: Any) -> Make:
    """Return what makes a composition at a budget."""
    return partial(get_method, name, **settings)


#: Label → what makes the method at a budget.
SOLVED: dict[str, Make] = {
    "omnidrop": OmniDrop,
    "omnidrop-raw": partial(OmniDrop, diversity_form="raw", diversity_from=0, diversity=5.0),
    "omnidrop-plain": partial(OmniDrop, diversity=0),
    "omnidrop-exponential": partial(OmniDrop, schedule="exponential"),
    "omnidrop-step": partial(OmniDrop, schedule="step"),
    "omnidrop-last-cut": partial(OmniDrop, rows="last", cache="cut"),
    "omnidrop-asl": partial(OmniDrop, turning="asl"),
    "omnidrop-asl-step": partial(OmniDrop, turning="asl", schedule="step", settled=0.9),
    "omnidrop-auto": OmniDropAuto,
    "omnidrop-auto-blind": partial(OmniDropAuto, power=0, lead=1),
    "omnidrop-auto-deep": partial(OmniDropAuto, free=1.0, fuse=0.5, rows="last", cache="cut"),
    "random": Random,
    "uniform": Uniform,
    "contextguard": partial(ContextGuard, predictor=predictor_folder()),
    "contextguard-merge": partial(
        ContextGuard, predictor=predictor_folder(), merge=1, alike=-1, detail=0, cut=3
    ),
    "fastv": FastV,
    "divprune": DivPrune,
    "divprune-chunk": partial(DivPrune, scope="chunk"),
    "visionzip": VisionZip,
    "dycoke": DyCoke,
    "dycoke-even": partial(DyCoke, audio="even"),
    "apack": APack,
    "apack-own": partial(APack, cache="own", alike=1.0, since=2),
    "echoingpixels": partial(EchoingPixels, refiner=refiner_folder()),
    "echoingpixels+random": composed("echoingpixels+random@omnidrop", refiner=refiner_folder()),
    "evs": Evs,
    "evs-even": partial(Evs, audio="even"),
    "seats": Seats,
    "seats-own": partial(Seats, cache="own", split="mass", after=(0.4, 0.6), late=1.0),
    "pyramiddrop": PyramidDrop,
    "sparsevlm": SparseVLM,
    "sparsevlm-plain": partial(SparseVLM, recycle=0),
    "omnifocus": OmniFocus,
    "omnifocus-even": partial(OmniFocus, least=0.5, most=0.5, association=0.8),
    "omnipack": OmniPack,
    "omnipack-own": partial(OmniPack, cache="own", at=0.3, keeps=0.2, rows="last", merge=False),
    "omniroute": OmniRoute,
    "omniroute-follow": partial(
        OmniRoute, follow=1.0, heat=10.0, rho_a=0.8, contextual=0.3, group=1
    ),
    "omnisift": partial(OmniSift, selector=selector_folder()),
    "omnisift-audio": partial(OmniSift, selector=selector_folder(), rho_a=0.9, rho_v=0.1),
    "omnizip": OmniZip,
    "omnizip-rates": partial(OmniZip, rho_a=0.8, rho_v=0.5, contextual=0.3, group=1),
    "dash": Dash,
    "omnifocus+omnidrop": composed("omnifocus+omnidrop"),
    "uniform+omnipack": composed("uniform+omnipack"),
    "omnipack+fastv": composed("omnipack+fastv"),
    "none+omnidrop": composed("none+omnidrop"),
    "uniform+omnidrop": composed("uniform+omnidrop"),
    "uniform+omnidrop-cut": composed("uniform+omnidrop", cache="cut", turning="asl"),
    "divprune+omnidrop-auto": composed("divprune+omnidrop-auto", power=0),
    "visionzip+seats": composed("visionzip+seats"),
    "dash+fastv": composed("dash+fastv"),
    "omnizip+pyramiddrop": composed("omnizip+pyramiddrop"),
    "omnidrop+sparsevlm": composed("omnidrop+sparsevlm"),
    "seats+fastv": composed("seats+fastv"),
    "dycoke+random@omnidrop": composed("dycoke+random@omnidrop", schedule="exponential"),
    "random+random@omnidrop": composed("random+random@omnidrop"),
    "uniform+uniform@omnidrop-auto": composed("uniform+uniform@omnidrop-auto"),
    "omnidrop-auto+omnidrop@seats": composed("omnidrop-auto+omnidrop@seats"),
    "none+random@pyramiddrop": composed("none+random@pyramiddrop"),
    "omniroute+omnidrop": composed("omniroute+omnidrop"),
    "uniform@omnidelta": composed("uniform@omnidelta"),
    "random@omnidelta": composed("random@omnidelta", cells="chunk", shift=1, heat=0.01),
    "evs@omnidelta": composed("evs@omnidelta", cells="modality"),
    "omniroute@omnidelta": composed("omniroute@omnidelta", shift=0),
    "omnidrop@omnidelta": composed("omnidrop@omnidelta", turning="asl", cells="modality"),
    "omnidrop-auto@omnidelta": composed("omnidrop-auto@omnidelta"),
    "fastv@omnidelta": composed("fastv@omnidelta"),
    "seats@omnidelta": composed("seats@omnidelta"),
    "sparsevlm@omnidelta": composed("sparsevlm@omnidelta"),
    "visionzip+omnidrop@omnidelta": composed("visionzip+omnidrop@omnidelta"),
    "random+random@omnidrop@omnidelta": composed("random+random@omnidrop@omnidelta", cache="cut"),
}

#: Methods whose counts do not follow from their budget alone.
GIVEN: dict[str, Make] = {
    "none": Method,
    **{
        name: partial(lambda preset: preset, preset)
        for kind in (
            *(APack, Dash, DyCoke, OmniDrop, OmniFocus, OmniPack, OmniZip),
            *(PyramidDrop, Seats, SparseVLM),
        )
        for name, preset in kind.presets().items()
    },
}

#: Those of `SOLVED` whose first layers see everything, which sets their lowest budget.
LIMITED = {
    *("fastv", "seats", "seats-own", "pyramiddrop", "sparsevlm", "sparsevlm-plain"),
    *("none+omnidrop", "visionzip+seats", "seats+fastv", "omnipack+fastv"),
    *("dash+fastv", "omnizip+pyramiddrop", "omnidrop+sparsevlm", "none+random@pyramiddrop"),
    "omnidrop-auto+omnidrop@seats",
    *("fastv@omnidelta", "seats@omnidelta", "sparsevlm@omnidelta"),
}

#: Those that can be met at any budget from 0.02 to 1 on any depth from 4 layers.
UNLIMITED = [name for name in SOLVED if name not in LIMITED]
