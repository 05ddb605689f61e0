"""Every method on another device than the CPU, found out without having one.

A question and a choice, with four layers of the demo model. In a
process of its own: `torch.inference_mode` must be out of the way before anything is imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from omnidrop.pruning.registry import method_names

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CODE = """
import json, sys
import torch
torch.inference_mode = torch.no_grad
from transformers import AutoTokenizer, Qwen2_5OmniThinkerConfig
import omnidrop
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.session import Model
from omnidrop.models.locations import demo_folder
from omnidrop.models.qwen2_5_omni.adapter import THINKER, QwenOmniAdapter
from omnidrop.pruning.registry import method_names
from tests.elsewhere import elsewhere, move
from tests.tiny import make_features

folder = demo_folder()
config = Qwen2_5OmniThinkerConfig.from_pretrained(folder)
config.text_config.num_hidden_layers = 4
thinker = THINKER.from_pretrained(folder, config=config, dtype=torch.float32)
move(thinker)
tokenizer = AutoTokenizer.from_pretrained(folder)
features = make_features(grid=(4, 4, 4), mel_frames=210)
short = GenerateOptions(max_new_tokens=2, temperature=0.7, logprobs=True, survivors=True)
said = {}
with elsewhere() as device:
    adapter = QwenOmniAdapter(thinker, tokenizer, name="demo", folder=folder, demo=True)
    assert adapter.device == device
    for name in method_names():
        method = omnidrop.get_method(name, **({} if name == "none" else {"budget": 0.6}))
        try:
            with Model(adapter).features(features) as clip:
                first = clip.ask("What plays first?", method=method, options=short)
                clip.ask("Which?", method=method, choices=("piano", "violin"))
            said[name] = first.trace.realised_budget
        except RuntimeError as error:
            said[name] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said() -> dict[str, float | str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", method_names())
def test_nothing_is_left_on_the_cpu(said: dict[str, float | str], name: str) -> None:
    wanted = 1.0 if name == "none" else 0.6
    assert said[name] == pytest.approx(wanted, abs=0.03)
