"""Every method on a simulated device: no tensor is left on the CPU, and nothing synchronises.

Each method answers a question and scores a choice with four layers of the demo model; then the
layers run once more with synchronisation as an error. This runs in a separate process, because
`torch.inference_mode` must be replaced before anything is imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omnidrop.pruning.registry import method_names

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
#: Methods that never synchronise, neither at entry nor between layers.
ON_DEVICE = ("fastv", "omnidrop", "pyramiddrop", "random")
CODE = """
import json, sys
from contextlib import nullcontext
from dataclasses import replace
from unittest import mock
import torch
torch.inference_mode = torch.no_grad
from transformers import AutoTokenizer, Qwen2_5OmniThinkerConfig
import omnidrop
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.model import Model
from omnidrop.models.locations import demo_folder
from omnidrop.models.qwen2_5_omni.adapter import THINKER, QwenOmniAdapter
from omnidrop.pruning.registry import method_names
from omnidrop.engine import prefill
from tests.elsewhere import elsewhere, move, no_stops
from tests.pruning.audio_selectors import selector_folder
from tests.pruning.refiners import refiner_folder
from tests.tiny import make_features

ON_DEVICE = sys.argv[1:]
folder = demo_folder()
config = Qwen2_5OmniThinkerConfig.from_pretrained(folder)
config.text_config.num_hidden_layers = 4
thinker = THINKER.from_pretrained(folder, config=config, dtype=torch.float32)
move(thinker)
tokenizer = AutoTokenizer.from_pretrained(folder)
features = make_features(grid=(4, 4, 4), mel_frames=210)
short = GenerateOptions(max_new_tokens=2, temperature=0.7, logprobs=True, survivors=True)
width = config.text_config.hidden_size
trained = {
    "echoingpixels": {"refiner": refiner_folder(width)},
    "omnisift": {"selector": selector_folder(width)},
}

def made(name, **settings):
    if name == "none":
        return omnidrop.get_method(name)
    return omnidrop.get_method(name, budget=0.6, **trained.get(name, {}), **settings)

said = {}
with elsewhere() as device:
    adapter = QwenOmniAdapter(thinker, tokenizer, name="demo", folder=folder, demo=True)
    assert adapter.device == device
    for name in method_names():
        method = made(name)
        try:
            with Model(adapter).features(features) as clip:
                first = clip.ask("What plays first?", method=method, options=short)
                clip.ask("Which?", method=method, choices=("piano", "violin"))
            said[name] = first.trace.realised_budget
        except RuntimeError as error:
            said[name] = str(error)

    enter, run = prefill._entered, prefill._LayerLoop.run
    def run_without_stops(self):
        with no_stops():
            return run(self)
    def enter_without_stops(task, *args, **kwargs):
        with no_stops() if task.method.name in ON_DEVICE else nullcontext():
            return enter(task, *args, **kwargs)
    stops = {}
    layerwise = {"omnidrop-asl": {"turning": "asl"}}
    with (
        mock.patch.object(prefill, "_entered", enter_without_stops),
        mock.patch.object(prefill._LayerLoop, "run", run_without_stops),
    ):
        for name in [*method_names(), "random+random@omnidrop", "omnidrop-asl"]:
            method = made(name.removesuffix("-asl"), **layerwise.get(name, {}))
            stops[name] = [method.needs_host, None]
            cuts = "cache" in method.settings()
            for kind in [replace(method, cache=c) for c in ("own", "cut")] if cuts else [method]:
                try:
                    with Model(adapter).features(features) as clip:
                        clip.ask("What plays?", method=kind, options=short)
                        clip.ask("And then?", method=kind, options=short)
                except RuntimeError as error:
                    stops[name][1] = str(error)
print(json.dumps([said, stops]))
"""


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *ON_DEVICE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_methods_elsewhere(found: list[dict[str, Any]]) -> None:
    """All of it in one test, so that one worker alone runs the process."""
    nothing_is_left_on_the_cpu(found[0])
    methods_synchronise_only_where_they_declare_it(found[1])
    synchronising_is_detected(found[1])


def nothing_is_left_on_the_cpu(said: dict[str, Any]) -> None:
    assert list(said) == method_names()
    for name, realised in said.items():
        assert realised == pytest.approx(1.0 if name == "none" else 0.6, abs=0.03), name


def methods_synchronise_only_where_they_declare_it(stops: dict[str, Any]) -> None:
    for name, (reason, stopped) in stops.items():
        if not reason and name != "omnidrop-asl":
            assert stopped is None, f"{name} declares that it works on the device"
    assert set(ON_DEVICE) <= {name for name, (reason, _) in stops.items() if not reason}


def synchronising_is_detected(stops: dict[str, Any]) -> None:
    # These select after some layers, on the CPU.
    for name in ("omnidrop-auto", "omnidrop-asl", "seats", "sparsevlm"):
        assert "waits for the device" in str(stops[name][1]), name
