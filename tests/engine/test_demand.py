"""OmniDelta's pools of words tell questions about sound from questions about the picture."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from avsynth import testset

from omnidrop.engine.model import Model
from omnidrop.pruning.registry import get_method


@pytest.mark.slow
def test_the_demo_models_words_tell_sound_from_picture(demo: Model) -> None:
    method = get_method("uniform@omnidelta", budget=0.3)

    def embed(text: str) -> torch.Tensor:
        return demo.adapter.embed(torch.tensor(demo.adapter.text.encode(text)[0]))

    phrases = tuple(map(embed, method.phrases))
    found: dict[str, list[float]] = {"sound": [], "picture": [], "both": []}
    for line in testset.read():
        view = SimpleNamespace(question_embeds=embed(line["question"]), phrase_embeds=phrases)
        found[line["family"]].append(method.demand(view))
    sound, picture, both = (torch.tensor(demands) for demands in found.values())
    assert len(sound) > 200
    assert len(picture) > 200
    assert float((sound[:, None] > picture).float().mean()) > 0.93
    assert float(sound.mean()) > 0.25
    assert float(picture.mean()) < -0.25
    assert abs(float(both.mean())) < 0.25
