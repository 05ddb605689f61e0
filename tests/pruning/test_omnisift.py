"""OmniSIFT against a plain-loop reading of its public code, and the care taken of its weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from audio_selectors import made_up, selector_folder, write_selector
from plain import best, cosine, frames_of, of_kind

from omnidrop.errors import ModelError, UsageError
from omnidrop.pruning.method import Backbone
from omnidrop.pruning.methods.omnisift import OmniSift
from omnidrop.pruning.parts import selector
from omnidrop.pruning.parts.selector import Selector, Shape, quotas, sift
from omnidrop.pruning.parts.trained import Network
from omnidrop.pruning.registry import get_method
from omnidrop.testing import check_method
from omnidrop.testing.simulate import clip, entry_view
from omnidrop.tokens import Kind

FOLDER = selector_folder()


def enter_with(backbone=None, tokens=None, **fields):
    tokens = clip() if tokens is None else tokens
    view = entry_view(tokens)
    object.__setattr__(view, "backbone", backbone)
    method = OmniSift(budget=0.3, **fields)
    return method.enter(view, method.plan(tokens, 8)).keep


def video_by_loops(embeds, frames, chunks, rate):
    """The grid's mean for the first of two grids of a chunk, the same place for the second."""
    kept = []
    for f, rows in enumerate(frames):
        drop = int(len(rows) * rate)
        if chunks[:f].count(chunks[f]) % 2 == 0:
            mean = [sum(embeds[i][d] for i in rows) / len(rows) for d in range(len(embeds[0]))]
            alike = [cosine(embeds[i], mean) for i in rows]
        else:
            alike = [cosine(embeds[a], embeds[b]) for a, b in zip(rows, frames[f - 1], strict=True)]
        kept += [rows[n] for n in best([-a for a in alike], len(rows) - drop)]
    return sorted(kept)


@pytest.mark.parametrize("grids", [1, 2, 3])
def test_video_and_audio_are_what_the_public_code_keeps(grids):
    """At rates that give whole numbers in every grid and chunk, where ours keeps as many."""
    network = selector.KIND.load(Path(FOLDER)).module
    for seed in range(3):
        tokens = clip(chunks=4, grids=grids, height=5, width=4, audio=10)
        view = entry_view(tokens, seed)
        frames = frames_of(tokens)
        n_audio, n_video = 4 * 7, 4 * grids * 6
        budget = (n_audio + n_video) / len(tokens)
        method = OmniSift(budget=budget, selector=FOLDER)
        kept = method.enter(view, method.plan(tokens, 12)).keep.tolist()

        embeds = view.embeds.double().tolist()
        chunks = [int(tokens.chunk[rows[0]]) for rows in frames]
        video = video_by_loops(embeds, frames, chunks, 0.7)
        wanted = list(video)
        for chunk in range(4):
            audio = [i for i in of_kind(tokens, Kind.AUDIO) if int(tokens.chunk[i]) == chunk]
            seen = [i for i in video if int(tokens.chunk[i]) == chunk]
            scores = network(
                view.embeds[audio][None],
                view.embeds[seen][None],
                torch.ones(1, len(seen), dtype=torch.bool),
            )[0]
            wanted += [audio[n] for n in best(scores.tolist(), len(audio) - int(len(audio) * 0.3))]
        assert kept == sorted(wanted)


def test_parameters_at_the_7b_s_width():
    with torch.device("meta"):
        network = Selector(Shape(3584))
    assert sum(p.numel() for p in network.parameters()) == 4_856_321
    kinds = {name.split(".")[0] for name, _ in network.named_parameters()}
    assert kinds == {"from_audio", "from_video", "attention", "norm", "head"}


def test_the_rates_give_the_published_shares():
    tokens = clip(chunks=10, grids=2, height=5, width=10, audio=50)
    total = round(0.7 * 500 + 0.3 * 1000)
    assert quotas(tokens, total, 0.3, 0.7) == (350, 300)
    assert quotas(tokens, total // 2, 0.3, 0.7) == (175, 150)
    assert quotas(tokens, 1500, 0.3, 0.7) == (500, 1000)


def test_padding_and_other_chunks_do_not_change_a_score():
    network = made_up()
    draw = torch.Generator().manual_seed(1)
    audio, video = torch.randn(1, 5, 8, generator=draw), torch.randn(1, 4, 8, generator=draw)
    seen = torch.ones(1, 4, dtype=torch.bool)
    alone = network(audio, video, seen)
    longer = torch.cat([video, torch.full((1, 3, 8), 7.0)], dim=1)
    padded = network(audio, longer, torch.arange(7)[None] < 4)
    assert torch.allclose(alone, padded, atol=1e-6)
    there = torch.arange(7)[None] < torch.tensor([[4], [0]])
    both = network(torch.cat([audio, audio.flip(2)]), torch.cat([longer] * 2), there)
    assert torch.allclose(both[:1], alone, atol=1e-6)
    assert bool(both.isfinite().all())


def test_scores_have_gradients_and_embeddings_have_none():
    tokens = clip(chunks=3)
    embeds = entry_view(tokens).embeds.requires_grad_(True)
    network = made_up()
    n_audio, n_video = quotas(tokens, 40, 0.3, 0.7)
    found = sift(network, tokens, embeds, n_audio, n_video)
    assert len(found.keep) == 40
    assert bool((found.keep.diff() > 0).all())
    kept = found.keep[found.audio]
    assert len(kept) == n_audio
    assert bool(tokens.audio[kept].all())
    assert found.scores is not None
    found.scores.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert embeds.grad is None
    assert float(network.from_audio[0].weight.grad.abs().sum()) > 0


def test_without_a_selector_audio_is_evenly_spaced():
    tokens = clip(chunks=2, grids=0, audio=10)
    found = sift(None, tokens, entry_view(tokens).embeds, 4, 0)
    assert found.scores is None
    gaps = found.keep.diff().tolist()
    assert len(found.keep) == 4
    assert gaps == [5, 5, 5]


@pytest.mark.parametrize("settings", [{}, {"rho_a": 0.9, "rho_v": 0.1}])
def test_it_is_a_method(settings):
    check_method(OmniSift, selector=FOLDER, **settings)


# The selector's files ---------------------------------------------------------------------------


def test_no_selector_is_an_error_that_says_how_to_train_one(tmp_path):
    for backbone in (None, Backbone("some/model", "abc", tmp_path)):
        with pytest.raises(
            ModelError, match=r"needs an audio selector .*omnidrop train-selector .*--set selector="
        ) as caught:
            enter_with(backbone)
        assert caught.value.exit_code == 4
    with pytest.raises(ModelError, match="no audio selector here"):
        enter_with(selector=str(tmp_path))
    silent = clip(audio=0)
    assert len(enter_with(tokens=silent)) == round(0.3 * len(silent)), "nothing trained is needed"


def test_a_model_is_checked_without_a_clip(tmp_path):
    backbone = Backbone("some/model", "abc", tmp_path)
    for name in ("omnisift", "contextguard", "omnisift+fastv"):
        with pytest.raises(ModelError, match="trained for some/model, and there is none"):
            get_method(name).check_model(backbone, 8)
    get_method("fastv").check_model(backbone, 8)
    write_selector(tmp_path / "selector", fingerprint="abc")
    get_method("omnisift+fastv").check_model(backbone, 8)
    with pytest.raises(ModelError, match="not for some/model"):
        OmniSift().check_model(backbone, 16)


def test_the_models_own_selector_is_found(tmp_path):
    write_selector(tmp_path / "selector", fingerprint="abc", backbone="some/model")
    given = enter_with(selector=str(tmp_path / "selector"))
    assert torch.equal(given, enter_with(Backbone("copy/of-it", "abc", tmp_path)))


def test_another_models_selector_is_refused(tmp_path):
    write_selector(tmp_path, fingerprint="abc", backbone="some/model")
    with pytest.raises(ModelError, match="trained for some/model, not for other/model"):
        enter_with(Backbone("other/model", "xyz"), selector=str(tmp_path))
    with pytest.raises(ModelError, match="not for this model"):
        enter_with(selector=selector_folder(16))


def test_a_selector_trained_with_a_decoder_serves_that_alone(tmp_path):
    own, other = tmp_path / "tuned", tmp_path / "stock"
    write_selector(own / "selector", fingerprint="abc", backbone="stock", decoder="trained")
    given = str(own / "selector")
    assert len(enter_with(Backbone("tuned", "abc", own)))
    assert len(enter_with(Backbone("tuned", "abc", own), selector=given))
    for backbone in (None, Backbone("stock", "abc", other)):
        with pytest.raises(ModelError, match=r"together with a decoder.*--model .*tuned"):
            enter_with(backbone, selector=given)


def test_reading_a_selector_draws_nothing(tmp_path):
    made = made_up()
    selector.KIND.save(tmp_path, Network(made, asdict(made.shape)))
    before = torch.get_rng_state()
    found = selector.KIND.load(tmp_path).module
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        torch.equal(a, b) for a, b in zip(made.parameters(), found.parameters(), strict=True)
    )


@pytest.mark.parametrize("damage", ["no json", "cut", "other schema", "missing tensor", "sizes"])
def test_a_damaged_selector_is_refused(tmp_path, damage):
    write_selector(tmp_path)
    settings, weights = tmp_path / "selector.json", tmp_path / "selector.safetensors"
    known = json.loads(settings.read_text())
    if damage == "no json":
        settings.write_text("{")
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-40])
    elif damage == "other schema":
        settings.write_text(json.dumps(known | {"schema": "omnidrop.a2v/1"}))
    elif damage == "sizes":
        settings.write_text(json.dumps(known | {"shape": {"width": 8, "hidden": 7, "heads": 2}}))
    else:
        from safetensors.torch import load_file, save_file

        state = load_file(weights)
        del state["head.2.bias"]
        save_file(state, weights)
    with pytest.raises(ModelError, match="is damaged"):
        selector.KIND.load(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"selector": ""}, "name a folder"),
        ({"selector": 3}, "name a folder"),
        ({"rho_a": 1.2}, "0 to 1"),
        ({"rho_v": -0.1}, "0 to 1"),
    ],
)
def test_senseless_settings_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        OmniSift(budget=0.3, **fields)


def test_it_is_the_entry_of_a_composition():
    made = get_method("omnisift+fastv", budget=0.5, selector=FOLDER)
    check_method(lambda **settings: get_method("omnisift+fastv", selector=FOLDER, **settings),
                 tunable=False, depths=(28,))  # fmt: skip
    assert made.name == "omnisift+fastv"
