"""The contract of a model family: keeping everything equals `generate`, token for token.

Runs on the oldest and the newest supported transformers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.session import Model
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from tests.models.conftest import load

QUESTION = "What is heard when the red square moves?"
TOKENS = 20

#: grid, seconds per grid, mel frames.
MIXES = {
    "with sound": ((4, 8, 12), 1.0, 437),
    "silent": ((3, 16, 20), 0.7, 0),
    "audio only": (None, None, 731),
    "no media": (None, None, 0),
    "sound ends first": ((7, 4, 6), 1.0, 205),
    "sound ends last": ((2, 4, 6), 1.0, 911),
    "slow frames": ((5, 4, 10), 3.1, 1500),
    "fast frames": ((6, 4, 4), 2 / 29.97, 40),
    "long": ((12, 12, 16), 1.0, 2400),
}


def features(mix: str) -> Features:
    grid, step, frames = MIXES[mix]
    generator = torch.Generator().manual_seed(len(mix))
    patches = (
        None if grid is None else torch.randn(torch.Size(grid).numel(), 1176, generator=generator)
    )
    mel = torch.randn(128, frames, generator=generator) if frames else None
    return Features(patches=patches, grid=grid, second_per_grid=step, mel=mel)


def reference(model, ids: torch.Tensor, clip: Features, stops: list[int]) -> list[int]:
    """Greedy tokens of the library's own `generate`, up to a stop token."""
    given = {}
    if clip.grid is not None:
        given["pixel_values_videos"] = clip.patches
        given["video_grid_thw"] = torch.tensor([clip.grid])
        given["video_second_per_grid"] = torch.tensor([clip.second_per_grid])
    if clip.mel is not None:
        given["input_features"] = clip.mel[None]
        given["feature_attention_mask"] = torch.ones(1, clip.mel.shape[1], dtype=torch.long)
    if clip.grid is not None and clip.mel is not None:
        given["use_audio_in_video"] = True
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids[None],
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=stops,
            **given,
        )
    tokens = out[0, len(ids) :].tolist()
    return next((tokens[:i] for i, t in enumerate(tokens) if t in stops), tokens)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=["hub", "thinker"])
def pair(request, dtype: str, hub_folder: Path, thinker_folder: Path):
    folder = hub_folder if request.param == "hub" else thinker_folder
    theirs = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        folder, dtype=getattr(torch, dtype)
    )
    return Model(load(folder, dtype=dtype)), theirs


@pytest.mark.parametrize("mix", MIXES)
def test_keeping_everything_equals_generate(pair, mix: str):
    model, theirs = pair
    clip = features(mix)
    with model.features(clip) as session:
        answer = session.ask(
            QUESTION, method=Method(), options=GenerateOptions(max_new_tokens=TOKENS), reuse=False
        )
        media = session.encode().media
    prompt = build_prompt(model.adapter.text, model.adapter.template, QUESTION, media)
    wanted = reference(theirs, prompt.ids, clip, sorted(model.adapter.stop_ids))
    assert list(answer.token_ids) == wanted
    assert len(set(wanted)) > 3


def test_eager_attention_equals_generate(thinker_folder: Path):
    model = Model(load(thinker_folder, attention="eager"))
    theirs = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        thinker_folder, dtype=torch.float32, attn_implementation="eager"
    )
    clip = features("with sound")
    with model.features(clip) as session:
        answer = session.ask(
            QUESTION, method=Method(), options=GenerateOptions(max_new_tokens=TOKENS)
        )
        media = session.encode().media
    prompt = build_prompt(model.adapter.text, model.adapter.template, QUESTION, media)
    assert list(answer.token_ids) == reference(
        theirs, prompt.ids, clip, sorted(model.adapter.stop_ids)
    )
