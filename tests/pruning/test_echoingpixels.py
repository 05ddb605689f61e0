"""EchoingPixels: what it keeps, what it rewrites, and the models that it is refused with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refiners import refiner_folder, write_refiner

from omnidrop.errors import ModelError, UsageError
from omnidrop.pruning.method import Backbone, Need
from omnidrop.pruning.methods.echoingpixels import EchoingPixels
from omnidrop.pruning.parts import refiner
from omnidrop.pruning.registry import get_method
from omnidrop.testing import check_method
from omnidrop.testing.simulate import clip, entry_view

FOLDER = refiner_folder()


def enter_with(backbone=None, budget=0.3, **fields):
    tokens = clip()
    view = replace(entry_view(tokens), backbone=backbone)
    method = EchoingPixels(budget=budget, **fields)
    with torch.no_grad():
        return view, method.enter(view, method.plan(tokens, 8))


def test_the_highest_scores_enter_refined_and_so_does_the_text():
    view, entry = enter_with(refiner=FOLDER)
    network = refiner.KIND.load(Path(FOLDER)).module
    prompt = view.prompt
    with torch.no_grad():
        rows = network(prompt.embeds[None], prompt.positions[:, None])[0]
        scores = network.score(rows[prompt.av])
    wanted = sorted(range(len(scores)), key=lambda i: -float(scores[i]))[: len(entry.keep)]
    assert entry.keep.tolist() == sorted(wanted)
    assert len(wanted) == round(0.3 * len(view.tokens))
    assert torch.equal(entry.states, rows[prompt.av][entry.keep])
    assert torch.equal(entry.text, rows[prompt.text])
    assert torch.equal(entry.carry(view.embeds), entry.states)
    assert torch.equal(entry.take(view.embeds), view.embeds[entry.keep]), "planes stay their own"


def test_at_a_budget_of_one_everything_enters_refined():
    view, entry = enter_with(budget=1.0, refiner=FOLDER)
    assert entry.keep.tolist() == list(range(len(view.tokens)))
    assert not torch.allclose(entry.states, view.embeds, atol=0.1)


def test_another_question_makes_other_states():
    view, entry = enter_with(refiner=FOLDER)
    asked = view.prompt.embeds.clone()
    asked[view.prompt.text[2:]] *= -3
    method = EchoingPixels(budget=0.3, refiner=FOLDER)
    other = replace(view, prompt=replace(view.prompt, embeds=asked))
    with torch.no_grad():
        again = method.enter(other, method.plan(view.tokens, 8))
    both = sorted(set(again.keep.tolist()) & set(entry.keep.tolist()))
    one, two = (e.states[torch.isin(e.keep, torch.tensor(both))] for e in (entry, again))
    assert bool(((one - two).abs().amax(1) > 1e-4).all()), "every token has seen the question"
    assert method.wants == {Need.QUESTION, Need.PROMPT}
    assert not method.question_free


def test_it_is_a_method():
    check_method(EchoingPixels, refiner=FOLDER)


def test_it_is_the_entry_of_a_composition():
    made = get_method("echoingpixels+fastv", budget=0.5, refiner=FOLDER)
    assert made.name == "echoingpixels+fastv"
    assert not made.question_free
    assert not get_method("echoingpixels+uniform@fastv", refiner=FOLDER).question_free
    check_method(lambda **settings: get_method("echoingpixels+fastv", refiner=FOLDER, **settings),
                 tunable=False, depths=(28,))  # fmt: skip
    tokens = clip()
    view = entry_view(tokens)
    whole = replace(made, budget=1.0)
    with torch.no_grad():
        entry = whole.enter(view, whole.plan(tokens, 8))
    assert entry.states is not None, "refined where every token enters, too"


def test_its_budget_cannot_be_split():
    for name in ("echoingpixels", "echoingpixels+fastv"):
        with pytest.raises(UsageError, match=r"as a whole.*split") as caught:
            get_method(f"{name}@omnidelta", refiner=FOLDER)
        assert "Leave out @omnidelta" in caught.value.hint


# The refiner's place ----------------------------------------------------------------------------


def test_a_model_without_a_refiner_is_refused_before_any_clip(tmp_path):
    backbone = Backbone("some/model", "abc", tmp_path)
    for name in ("echoingpixels", "echoingpixels+fastv"):
        with pytest.raises(
            ModelError, match="EchoingPixels needs a refiner trained for some/model, and there is"
        ) as caught:
            get_method(name).check_model(backbone, 8)
        assert caught.value.exit_code == 4
        assert "samples/train_demo_refiner.py --out FOLDER" in caught.value.hint
        assert caught.value.hint.endswith("--model FOLDER")
    for known in (None, backbone):
        with pytest.raises(ModelError, match="and there is none"):
            enter_with(known)
    with pytest.raises(ModelError, match="no refiner here"):
        enter_with(refiner=str(tmp_path))


def test_the_models_own_refiner_is_found(tmp_path):
    write_refiner(tmp_path / "refiner", fingerprint="abc", backbone="demo", decoder="trained")
    backbone = Backbone("copy/of-it", "abc", tmp_path)
    EchoingPixels().check_model(backbone, 8)
    _, own = enter_with(backbone)
    _, named = enter_with(backbone, refiner=str(tmp_path / "refiner"))
    assert torch.equal(own.keep, named.keep)
    with pytest.raises(ModelError, match="not for copy/of-it"):
        EchoingPixels().check_model(backbone, 16)
    with pytest.raises(ModelError, match="trained for demo, not for other/model"):
        EchoingPixels(refiner=str(tmp_path / "refiner")).check_model(
            Backbone("other/model", "xyz"), 8
        )


def test_a_refiner_trained_with_a_decoder_serves_that_alone(tmp_path):
    write_refiner(tmp_path / "refiner", fingerprint="abc", backbone="demo", decoder="trained")
    given = str(tmp_path / "refiner")
    for backbone in (None, Backbone("demo", "abc", tmp_path / "elsewhere")):
        with pytest.raises(ModelError, match="together with a decoder") as caught:
            enter_with(backbone, refiner=given)
        assert caught.value.hint.endswith(f"--model {tmp_path}")


@pytest.mark.parametrize("given", ["", " ", 3])
def test_senseless_settings_are_refused(given):
    with pytest.raises(UsageError, match="name a folder"):
        EchoingPixels(refiner=given)
