"""Weights or logits that are not numbers end in an error, never in an answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.errors import ModelError
from omnidrop.pruning.registry import get_method
from omnidrop.testing import tiny_checkpoint
from tests.tiny import load_tiny, make_features


@pytest.fixture(scope="module", params=["nan 0", "nan 5", "inf 5"])
def damaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with one such value in the MLP of a layer."""
    value, layer = request.param.split()
    folder = tiny_checkpoint(tmp_path_factory.mktemp("damaged"), "qwen2_5_omni")
    file = folder / "model.safetensors"
    state = load_file(file)
    name = max(key for key in state if key.endswith(f"layers.{layer}.mlp.down_proj.weight"))
    state[name][3, 3] = float(value)
    save_file(state, file, metadata={"format": "pt"})
    return load_tiny(folder)


@pytest.mark.parametrize("choices", [(), ("yes", "no")], ids=["generated", "choices"])
@pytest.mark.parametrize("method", ["none", "omnidrop"])
def test_an_answer_is_refused(damaged, method, choices):
    with damaged.features(make_features(model=damaged)) as session:
        for _ in range(2):  # nothing of the first question is kept that would hide it
            with pytest.raises(
                ModelError, match=r"logits are not numbers.*float32 on cpu"
            ) as error:
                session.ask("What is heard?", method=get_method(method), choices=choices)
            assert "download them again" in str(error.value)


def test_the_remedy_for_float16(model: Model, features: Features, monkeypatch) -> None:
    adapter = model.adapter
    wide = adapter.logits
    monkeypatch.setattr(adapter, "logits", lambda hidden: wide(hidden) * torch.inf)
    monkeypatch.setattr(adapter, "info", replace(adapter.info, dtype="float16"))
    with (
        model.features(features) as session,
        pytest.raises(ModelError, match="--dtype float32, or bfloat16"),
    ):
        session.ask("What is heard?")


def test_a_sound_model_answers(model: Model, features: Features) -> None:
    with model.features(features) as session:
        assert session.ask("What is heard?").token_ids
