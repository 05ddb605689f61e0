"""The recipe moves all its tensors to the device; tested on a fake device (`elsewhere`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from avsynth.sound import load_bank
from avsynth.world import WorldOptions, draw_clip
from recipe.batches import SYSTEM, Asker, Collator, make_sample
from recipe.labels import Speaker
from recipe.language import auxiliary, judge, teach_words
from recipe.lessons import Lessons, TowerOptions
from recipe.measure import answer_all
from recipe.pool import tower_vectors
from recipe.shape import WIDTH, build_model, parts
from recipe.teaching import Heads, lesson_loss
from recipe.trunk import Trunk
from recipe.vocab import build_tokenizer, concept_vectors

from tests.elsewhere import Elsewhere, elsewhere, move

TOK = build_tokenizer()
SPEAKER = Speaker(concept_vectors(WIDTH))
BOTH = WorldOptions(modes=(1, 0, 0), min_s=5.0, max_s=5.5)


def moved_everywhere(module: torch.nn.Module) -> bool:
    return all(isinstance(p.grad, Elsewhere) for p in module.parameters() if p.grad is not None)


@pytest.mark.slow
def test_decoder_training_leaves_no_tensor_on_the_cpu() -> None:
    rng = np.random.default_rng(0)
    model = build_model(TOK, 8)
    trunk = Trunk(parts(model).text, model.lm_head, probe_layer=3)
    move(trunk)
    samples = [make_sample(draw_clip(seed, BOTH), SPEAKER, rng) for seed in (1, 2)]
    asked = [Asker(rng).draw(sample.clip, 4) for sample in samples]
    with elsewhere() as device:
        teach_words(trunk, TOK)
        batch = Collator(TOK)(samples, asked, [SYSTEM, SYSTEM]).to(device)
        for cut in (None, 5):
            logits, probed = trunk.train()(batch, cut)
            loss = torch.nn.functional.cross_entropy(logits, batch.want)
            (loss + auxiliary(trunk, batch, probed, 2.0)).backward()
        assert np.isfinite(judge(trunk, [batch]))
        pairs = list(zip(samples, asked, strict=True))
        assert len(answer_all(trunk, TOK, pairs, cut=5, keep=0.5)) == 8
    assert moved_everywhere(trunk)


@pytest.mark.slow
def test_tower_training_leaves_no_tensor_on_the_cpu() -> None:
    audio, vision, _ = parts(build_model(TOK, 1))
    heads = Heads(WIDTH)
    for module in (audio, vision, heads):
        move(module)
    bank = load_bank("train")
    lesson = Lessons(TowerOptions(clips=2, grids=8), bank, SPEAKER, 0, 400_000_000).draw(0.5)
    with elsewhere():
        loss, score = lesson_loss(audio, vision, heads, lesson)
        loss.backward()
        vectors = tower_vectors(audio, vision, draw_clip(3, BOTH), bank, None)
    assert {"sound", "shape"} <= set(score)
    assert all(isinstance(v, np.ndarray) and np.isfinite(v).all() for v in vectors)
    assert all(moved_everywhere(module) for module in (audio, vision, heads))


def test_the_fake_device_finds_a_tensor_on_the_cpu() -> None:
    layer = torch.nn.Linear(3, 2)
    move(layer)
    with elsewhere() as device:
        assert isinstance(layer(torch.ones(1, 3, device=device)), Elsewhere)
        assert layer(torch.ones(1, 3).to(device)).cpu().shape == (1, 2)
        with pytest.raises(RuntimeError, match="mixes devices"):
            layer(torch.ones(1, 3))
