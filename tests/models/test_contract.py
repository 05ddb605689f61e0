"""Without pruning, answers equal the family's reference, token for token.

Runs on the oldest and the newest supported transformers.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import (
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen3OmniMoeThinkerForConditionalGeneration,
)

from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.models.loading import LoadOptions, load_adapter
from omnidrop.models.qwen2_5_omni import tiny as qwen2_5
from omnidrop.models.qwen3_omni import tiny as qwen3
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from omnidrop.testing.made_up_family import random_model, write_checkpoint
from omnidrop.testing.made_up_model import MadeUpConfig, MadeUpOmni, reference_positions
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


def features(mix: str, width: int = 1176, bins: int = 128) -> Features:
    grid, step, frames = MIXES[mix]
    generator = torch.Generator().manual_seed(len(mix))
    patches = (
        None if grid is None else torch.randn(torch.Size(grid).numel(), width, generator=generator)
    )
    mel = torch.randn(bins, frames, generator=generator) if frames else None
    return Features(patches=patches, grid=grid, second_per_grid=step, mel=mel)


def reference(model, ids: torch.Tensor, clip: Features, stops: list[int]) -> list[int]:
    """Greedy tokens of transformers' `generate`, up to a stop token."""
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


#: The reference's class, and what writes a checkpoint, by family and layout.
LAYOUTS = {
    "2.5 hub": (Qwen2_5OmniThinkerForConditionalGeneration, qwen2_5.hub_layout),
    "2.5 thinker": (Qwen2_5OmniThinkerForConditionalGeneration, qwen2_5.tiny_thinker),
    "3 hub": (Qwen3OmniMoeThinkerForConditionalGeneration, qwen3.hub_layout),
    "3 thinker": (Qwen3OmniMoeThinkerForConditionalGeneration, qwen3.tiny_thinker),
}


#: What is compared by default: some mixes of the hub's layout in float32; of bfloat16, and of the
#: layout that we save ourselves, which differs only until the weights are loaded, one mix.
USUAL = ("with sound", "silent", "audio only", "no media", "sound ends last", "long")
PAIRED = [
    pytest.param(
        layout,
        mix,
        dtype,
        marks=[]
        if mix == "with sound" or ("hub" in layout and dtype == "float32" and mix in USUAL)
        else pytest.mark.slow,
    )
    for layout in LAYOUTS
    for mix in MIXES
    for dtype in ("float32", "bfloat16")
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory):
    """Loads a checkpoint of a layout, and the reference of it, once for each dtype."""

    @cache
    def make(layout: str, dtype: str):
        kind, write = LAYOUTS[layout]
        folder = write(tmp_path_factory.mktemp("pair"))
        theirs = kind.from_pretrained(folder, dtype=getattr(torch, dtype))
        options = LoadOptions(model=str(folder), device="cpu", dtype=dtype, offline=True)
        return Model(load_adapter(options)), theirs

    return make


@pytest.mark.parametrize(("layout", "mix", "dtype"), PAIRED)
def test_keeping_everything_equals_generate(pair, dtype: str, layout: str, mix: str):
    model, theirs = pair(layout, dtype)
    video = model.adapter.video_spec
    clip = features(mix, 3 * video.temporal_patch_size * video.patch_size**2)
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


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, MadeUpOmni]:
    folder = write_checkpoint(tmp_path_factory.mktemp("made-up"))
    options = LoadOptions(model=str(folder), device="cpu", dtype="float32", offline=True)
    return Model(load_adapter(options)), random_model(MadeUpConfig(), seed=0)


@pytest.mark.parametrize("mix", MIXES)
def test_another_family_equals_its_reference(made_up: tuple[Model, MadeUpOmni], mix: str):
    """Fractional positions, a second plane, ten audio tokens a second; the same engine."""
    model, theirs = made_up
    clip = features(mix, width=192, bins=40)
    with model.features(clip) as session:
        answer = session.ask(
            QUESTION, method=Method(), options=GenerateOptions(max_new_tokens=TOKENS), reuse=False
        )
        encoded = session.encode()
    prompt = build_prompt(model.adapter.text, model.adapter.template, QUESTION, encoded.media)
    ids = prompt.ids.tolist()
    positions = reference_positions(theirs.config, ids, clip.grid, clip.second_per_grid)
    assert prompt.positions.dtype == torch.float32
    torch.testing.assert_close(prompt.positions, positions, rtol=0, atol=1e-4)
    assert len(encoded.planes) == (0 if clip.grid is None else 2)
    wanted = theirs.generate(
        ids,
        patches=clip.patches,
        grid=clip.grid,
        second_per_grid=clip.second_per_grid,
        mel=clip.mel,
        tokens=TOKENS,
    )
    assert list(answer.token_ids) == wanted
    assert len(set(wanted)) > 3


def test_the_second_plane_matters(made_up: tuple[Model, MadeUpOmni]):
    """Without it the reference gives other logits, so the test above would fail if it was lost."""
    model, theirs = made_up
    clip = features("silent", width=192, bins=40)
    with model.features(clip) as session:
        media = session.encode().media
    ids = build_prompt(model.adapter.text, model.adapter.template, QUESTION, media).ids.tolist()
    assert clip.patches is not None
    assert clip.grid is not None
    with torch.inference_mode():
        planes = theirs.vision(clip.patches, clip.grid)[:2]
        given = (ids, planes, None, clip.grid, clip.second_per_grid)
        whole = theirs._logits(*given)
        without = theirs._logits(ids, (planes[0], 0 * planes[1]), *given[2:])
    assert float((whole - without).abs().max()) > 0.5
