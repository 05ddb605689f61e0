"""Qwen3-Omni on a simulated device: no tensor is left on the CPU; decoding does not synchronise.

In a separate process, because `torch.inference_mode` must be replaced before anything is imported.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys
from pathlib import Path
import torch
torch.inference_mode = torch.no_grad
from transformers import AutoTokenizer
import omnidrop
from omnidrop.engine.cache import KVCache
from omnidrop.engine.model import Model
from omnidrop.models.experts import Packed8, SmallBlock
from omnidrop.models.qwen3_omni.adapter import BLOCK, THINKER, Qwen3OmniAdapter
from omnidrop.models.qwen3_omni.tiny import tiny_thinker
from omnidrop.options import GenerateOptions
from tests.elsewhere import elsewhere, move, no_stops
from tests.tiny import make_features

folder = tiny_thinker(Path(sys.argv[1]), layers=4)
tokenizer = AutoTokenizer.from_pretrained(folder)
short = GenerateOptions(max_new_tokens=3)

def quantised(thinker):
    text = getattr(thinker.model, "language_model", thinker.model)
    for layer in text.layers:
        whole = layer.mlp
        layer.mlp = SmallBlock(whole, Packed8)
        layer.mlp.experts.allocate(torch.device("cpu"), torch.float32)
        for expert in range(whole.experts.num_experts):
            gate, up = whole.experts.gate_up_proj[expert].detach().chunk(2)
            layer.mlp.experts.put(expert, "gate", gate)
            layer.mlp.experts.put(expert, "up", up)
            layer.mlp.experts.put(expert, "down", whole.experts.down_proj[expert].detach())
    return thinker

def answers(adapter, features):
    found = []
    for name in ("none", "omnidrop", "seats", "dycoke"):
        method = omnidrop.get_method(name, **({} if name == "none" else {"budget": 0.6}))
        with Model(adapter).features(features) as clip:
            found.append(clip.ask("What plays first?", method=method, options=short).token_ids)
    return found

for small in (False, True):
    thinker = THINKER.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager")
    if small:
        thinker = quantised(thinker)
    here = Qwen3OmniAdapter(thinker, tokenizer, name="tiny", folder=folder)
    features = make_features((4, 4, 6), 930, model=Model(here))
    wanted = answers(here, features)
    move(thinker)
    with elsewhere() as device:
        adapter = Qwen3OmniAdapter(thinker, tokenizer, name="tiny", folder=folder)
        assert adapter.device == device
        assert answers(adapter, features) == wanted
        if small:
            hidden = adapter.embed(torch.tensor([5], device=device)).unsqueeze(0)
            rotary = adapter.rotary(torch.zeros(3, 1, device=device))
            cache = KVCache(4)
            with no_stops():
                for layer in range(4):
                    hidden = adapter.layer(layer, hidden, rotary, cache)
"""


def test_nothing_is_left_on_the_cpu_and_a_step_does_not_wait(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
