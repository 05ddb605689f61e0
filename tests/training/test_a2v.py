"""Training of the audio-to-visual predictor: it learns what can be learnt, and says what it did."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from omnidrop.errors import MediaError, UsageError
from omnidrop.pruning.parts import a2v
from omnidrop.training.a2v import Pairs, TrainOptions, pairs_of, train

WIDTH = 12


def made_clips(count: int, chunks: int = 6, told: bool = True) -> list[Pairs]:
    """Clips whose pictures follow from their sound by one fixed map, or from nothing."""
    draw = torch.Generator().manual_seed(4)
    turn = torch.randn(WIDTH, WIDTH, generator=draw)
    clips = []
    for i in range(count):
        length = 5 + i % 3
        sound = torch.randn(chunks, 1, WIDTH, generator=draw).expand(-1, length, -1).clone()
        picture = sound[:, 0] @ turn if told else torch.randn(chunks, WIDTH, generator=draw)
        there = torch.ones(chunks, length, dtype=torch.bool)
        there[0, -1] = False
        clips.append(Pairs(sound, there, picture))
    return clips


@pytest.fixture(scope="module")
def adapter(model):
    return model.adapter


def test_what_the_sound_tells_is_learnt(adapter) -> None:
    options = TrainOptions(hidden=32, steps=400, seed=1)
    trained = train(made_clips(40), adapter, options)
    losses = trained.training
    assert losses["held_out_loss"] < 0.3 < losses["held_out_loss_without_listening"]
    assert (losses["clips"], losses["held_out_clips"]) == (32, 8)
    assert (losses["chunks"], losses["held_out_chunks"]) == (192, 48)
    assert trained.fingerprint == adapter.fingerprint


def test_what_it_does_not_tell_is_not(adapter) -> None:
    losses = train(made_clips(40, told=False), adapter, TrainOptions(steps=200)).training
    assert losses["held_out_loss"] > 0.8
    assert losses["held_out_loss_without_listening"] > 0.8


def test_the_same_seed_gives_the_same_predictor(adapter, tmp_path) -> None:
    told: list[tuple[str, float, float | None]] = []
    options = TrainOptions(hidden=8, steps=20, seed=3)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first = train(made_clips(5), adapter, options, lambda *step: told.append(step))
    again = train(made_clips(5), adapter, options)
    other = train(made_clips(5), adapter, TrainOptions(hidden=8, steps=20, seed=4))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.training == again.training != other.training
    weights = [t.module.widen.weight for t in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert told[-1] == ("training", 20.0, 20.0)

    a2v.KIND.save(tmp_path, first)
    back = a2v.KIND.load(tmp_path)
    assert (back.backbone, back.fingerprint) == (first.backbone, first.fingerprint)
    assert back.training == first.training
    assert json.loads((tmp_path / a2v.KIND.settings).read_text())["shape"]["width"] == WIDTH
    assert torch.allclose(back.module.widen.weight, weights[0], atol=1e-3)


def test_one_clip_is_not_enough(adapter) -> None:
    empty = Pairs(torch.zeros(0, 0, WIDTH), torch.zeros(0, 0, dtype=torch.bool), torch.zeros(0, 12))
    with pytest.raises(MediaError, match="1 of 3 clips have both"):
        train([empty, *made_clips(1), empty], adapter)


@pytest.mark.parametrize(
    "fields", [{"steps": 0}, {"hidden": 0}, {"held_out": 1.0}, {"rate": 0.0}, {"seed": -1}]
)
def test_senseless_options_are_refused(fields) -> None:
    with pytest.raises(UsageError):
        TrainOptions(**fields)


def test_pairs_are_the_sound_and_the_mean_picture_of_each_chunk(model, features) -> None:
    session = model.features(features)
    encoded = session.encode()
    pairs = pairs_of(session)
    assert encoded.video is not None
    assert encoded.audio is not None
    template = model.adapter.template
    chunk_of_grid = [int(second / template.chunk_seconds) for second in range(4)]
    per_grid = len(encoded.video) // 4
    per_chunk = int(100 / template.mel_per_token * template.chunk_seconds)
    for chunk in range(max(chunk_of_grid) + 1):
        first = per_grid * chunk_of_grid.index(chunk)
        seen = encoded.video[first : first + per_grid * chunk_of_grid.count(chunk)]
        heard = encoded.audio[per_chunk * chunk : per_chunk * (chunk + 1)]
        assert torch.allclose(pairs.picture[chunk], seen.float().mean(0), atol=1e-5)
        assert torch.equal(pairs.audio[chunk, : len(heard)], heard.float())
        assert pairs.there[chunk].sum() == len(heard)
    assert len(pairs) == max(chunk_of_grid) + 1


def test_without_sound_or_picture_there_are_no_pairs(model, features) -> None:
    assert len(pairs_of(model.features(replace(features, mel=None)))) == 0
    blind = replace(features, patches=None, grid=None, second_per_grid=None)
    assert len(pairs_of(model.features(blind))) == 0
