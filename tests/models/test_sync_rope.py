"""A checkpoint whose decoder turns by [T, H, W, T], and the method that it answers under."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import omnidrop
from omnidrop.engine.cache import KVCache
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.model import Model
from omnidrop.engine.prefill import backbone_of
from omnidrop.errors import ModelError
from omnidrop.models import sync_rope
from omnidrop.models.locations import find
from omnidrop.pruning.method import Method
from omnidrop.pruning.methods.echoingpixels import EchoingPixels
from omnidrop.pruning.parts import refiner
from omnidrop.pruning.parts.trained import Network
from omnidrop.rotary import sync_sections
from tests.tiny import load_tiny, make_features

QUESTION = "What instrument plays first?"
SHORT = GenerateOptions(max_new_tokens=6, survivors=True, logprobs=True)


def sync_copy(folder: Path, out: Path, fingerprint: str) -> Path:
    """A tiny checkpoint with Sync-RoPE and a refiner with copies of its first layers."""
    shutil.copytree(folder, out)
    path = out / "config.json"
    config = json.loads(path.read_text())
    text = config["text_config"]
    head_dim = text["hidden_size"] // text["num_attention_heads"]
    sections = sync_sections(head_dim // 2)
    path.write_text(json.dumps(sync_rope.written(config, sections)))
    shape = refiner.Shape(
        width=text["hidden_size"],
        inner=text["intermediate_size"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_dim=head_dim,
        sections=sections,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = refiner.Refiner(shape)
    made.copy_layers(load_tiny(folder).adapter._layers)
    known = Network(made, asdict(shape), "tiny", fingerprint, {"decoder": "trained"})
    refiner.KIND.save(out / "refiner", known)
    return out


@pytest.fixture(scope="module")
def sync_folder(tmp_path_factory, model: Model) -> Path:
    made = tmp_path_factory.mktemp("sync") / "refined"
    return sync_copy(model.adapter.folder, made, model.adapter.fingerprint)


@pytest.fixture(scope="module")
def refined(sync_folder: Path) -> Model:
    return load_tiny(sync_folder)


def test_the_decoder_turns_by_time_again(refined: Model, model: Model) -> None:
    positions = torch.randint(0, 900, (3, 30), generator=torch.Generator().manual_seed(0))
    cos, sin = refined.adapter.rotary(positions)
    head_dim = refined.info.text.head_dim
    half = head_dim // 2
    axes = [0, 0, 1, 1, 2, 2, 0, 0]
    assert half == len(axes)
    for row, place in enumerate(positions.T.tolist()):
        for i in range(head_dim):
            angle = place[axes[i % half]] * 1e6 ** (-2 * (i % half) / head_dim)
            assert float(cos[0, row, i]) == pytest.approx(math.cos(angle), abs=1e-3)
            assert float(sin[0, row, i]) == pytest.approx(math.sin(angle), abs=1e-3)
    assert type(refined.adapter._text.rotary_emb) is sync_rope.SyncRotary
    assert type(model.adapter._text.rotary_emb).__module__.startswith("transformers.")


def test_training_computes_with_the_same_angles(refined: Model) -> None:
    """The decoder with gradients, and the engine's layers, give the same logits."""
    adapter = refined.adapter
    ids = torch.arange(40, 60)
    positions = torch.stack([torch.arange(20) * n for n in (3, 1, 2)])
    with torch.no_grad():
        logits = adapter.decoder().logits(adapter.embed(ids).clone(), positions, 1)[0]
    cache, hidden = KVCache(refined.info.text.layers), adapter.embed(ids)[None]
    with torch.inference_mode():
        for layer in range(refined.info.text.layers):
            hidden = adapter.layer(layer, hidden, adapter.rotary(positions), cache)
        told = adapter.logits(hidden)
    torch.testing.assert_close(logits, told, atol=1e-4, rtol=1e-4)


def test_asking_runs_the_refiner_unless_another_method_is_named(refined: Model) -> None:
    features = make_features(model=refined)
    with refined.features(features) as clip:
        plain = clip.ask(QUESTION, options=SHORT)
        named = clip.ask(QUESTION, method=EchoingPixels(budget=0.2), options=SHORT)
        again = clip.ask(QUESTION, method=EchoingPixels(budget=0.2), options=SHORT)
        none = clip.ask(QUESTION, method=Method(), options=SHORT)
        all_in = clip.ask(QUESTION, method=EchoingPixels(budget=1.0), options=SHORT)
    assert plain.trace.method["name"] == "echoingpixels"
    assert plain.trace.realised_budget == pytest.approx(0.2, abs=0.01)
    assert plain.token_ids == named.token_ids == again.token_ids
    assert named.logprobs == again.logprobs
    shape, text = refined.info.text, named.trace.text_tokens
    refining = shape.two_way_flops(text + named.trace.av_tokens, 4)
    decoding = shape.prefill_flops(text, named.trace.kept_per_layer)
    assert named.trace.flops_prefill == refining + decoding
    assert none.trace.flops_prefill == none.trace.flops_prefill_unpruned
    assert none.logprobs != all_in.logprobs, "refined states enter at a budget of 1, too"


def test_a_clip_too_short_for_the_budget_enters_whole_and_refined(refined: Model) -> None:
    with refined.features(make_features((2, 2, 2), 0, model=refined)) as clip:
        answer = clip.ask(QUESTION, options=SHORT)
    assert answer.trace.method["name"] == "echoingpixels"
    assert answer.trace.realised_budget == 1.0


def test_the_folder_says_what_it_needs(sync_folder: Path, model: Model) -> None:
    assert find(str(sync_folder)).recommended == sync_rope.RECOMMENDED
    assert not find(str(model.adapter.folder)).recommended.always
    omnidrop.get_method("echoingpixels").check_model(
        backbone_of(load_tiny(sync_folder).adapter), model.info.text.hidden
    )


def test_a_model_without_a_refiner_is_refused_before_the_clip_is_read(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = EchoingPixels(budget=0.2)
    assert isinstance(model.lacks(method), ModelError)
    with model.features(make_features(model=model)) as clip:
        monkeypatch.setattr(clip, "_encode", None)
        with pytest.raises(ModelError, match="needs a refiner trained for") as caught:
            clip.ask(QUESTION, method=method)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("sections", [[2, 3, 3], [2, 2, 2, 1], [3, 3, 3, -1]])
def test_sections_that_do_not_fit_are_refused(sync_folder: Path, tmp_path, sections) -> None:
    out = Path(shutil.copytree(sync_folder, tmp_path / "m"))
    config = json.loads((out / "config.json").read_text())
    config["text_config"]["rope_parameters"]["mrope_section"] = sections
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="must be four numbers that add up to 8"):
        load_tiny(out)


def test_transformers_alone_refuses_such_a_decoder(sync_folder: Path) -> None:
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

    with pytest.raises((KeyError, ValueError), match="sync"):
        Thinker.from_pretrained(sync_folder)


def test_a_config_is_read_under_its_older_name() -> None:
    old = {"text_config": {"rope_scaling": {"type": "sync", "mrope_section": [1, 1, 1, 1]}}}
    assert sync_rope.is_sync(old)
    read = sync_rope.readable(old)
    assert read["text_config"]["rope_scaling"]["type"] == "default"
    assert old["text_config"]["rope_scaling"]["type"] == "sync", "the caller's own is not changed"
    for other in ({}, {"text_config": None}, {"text_config": {"rope_parameters": None}}):
        assert not sync_rope.is_sync(other)
        assert sync_rope.readable(other) == other
