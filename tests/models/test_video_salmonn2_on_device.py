"""video-SALMONN 2+ on a simulated device: no tensor is left on the CPU, and answers are the same.

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
from omnidrop.engine.model import Model
from omnidrop.models.video_salmonn2.adapter import THINKER, SalmonnAdapter
from omnidrop.models.video_salmonn2.encoders import load_audio
from omnidrop.models.video_salmonn2.sizes import audio_config
from omnidrop.models.video_salmonn2.tiny import tiny_checkpoint
from omnidrop.options import GenerateOptions
from tests.elsewhere import elsewhere, move
from tests.tiny import make_features

folder = tiny_checkpoint(Path(sys.argv[1]), layers=4)
tokenizer = AutoTokenizer.from_pretrained(folder)
thinker = THINKER.from_pretrained(folder, dtype=torch.float32)
audio = load_audio(folder, audio_config(thinker.config), torch.device("cpu"), torch.float32)

def adapter():
    return SalmonnAdapter(thinker, tokenizer, audio, name="tiny", folder=folder)

def answers(model, features):
    found = []
    for name in ("none", "omnidrop", "omnizip", "visionzip"):
        method = omnidrop.get_method(name, **({} if name == "none" else {"budget": 0.6}))
        with model.features(features) as clip:
            answer = clip.ask(
                "What plays first?", method=method, options=GenerateOptions(max_new_tokens=3)
            )
            found.append(answer.token_ids)
    return found

here = Model(adapter())
features = make_features((4, 4, 6), 930, model=here)
wanted = answers(here, features)
move(thinker)
with elsewhere() as device:
    there = Model(adapter())
    assert there.adapter.device == device
    assert answers(there, features) == wanted
"""


def test_nothing_is_left_on_the_cpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
