"""A question that names no method: the model's recommended one, where dropping is worth it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import omnidrop
from omnidrop.engine import worth
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.default import method_of
from omnidrop.engine.encode import Encoded, Features
from omnidrop.engine.model import Model
from omnidrop.errors import MemoryShortError, UsageError
from omnidrop.models.family import families, recommended_for
from omnidrop.models.locations import recommended_by_name
from omnidrop.pruning.method import Method
from omnidrop.recommended import SAFE, Recommended
from omnidrop.report.trace import Used
from omnidrop.shapes import Shapes
from omnidrop.testing.made_up_family import FAMILY as MADE_UP
from omnidrop.tokens import Kind, Media, Prompt, TokenMap

QUESTION = "What instrument plays first?"
SHORT = GenerateOptions(max_new_tokens=4)
UNIFORM = Recommended("uniform", 0.4, "a test")


@pytest.fixture
def uniform(model: Model) -> Model:
    """The tiny model, whose default is uniform at 40 %."""
    before = model.recommended
    model.recommended = UNIFORM
    yield model
    model.recommended = before


def test_the_recommended_method_runs_and_the_trace_says_why(
    uniform: Model, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worth, "LEAST", 0.0)
    with uniform.features(features) as clip:
        trace = clip.ask(QUESTION, options=SHORT).trace
        asked = clip.ask(QUESTION, method=uniform.method(), options=SHORT).trace
    assert (trace.method["name"], trace.asked_budget) == ("uniform", 0.4)
    default = trace.method["default"]
    assert (default["method"], default["budget"], default["source"]) == ("uniform", 0.4, "a test")
    assert "default" not in asked.method
    assert trace.kept_per_layer == asked.kept_per_layer


def test_where_dropping_saves_little_every_token_is_kept(
    uniform: Model, features: Features
) -> None:
    """A tiny prefill is a thousandth of what opening a clip takes."""
    with uniform.features(features) as clip:
        trace = clip.ask(QUESTION, options=SHORT).trace
    assert trace.realised_budget == 1.0
    assert trace.method["name"] == "none"
    assert trace.method["default"]["method"] == "uniform"
    assert (
        "Every token was kept: dropping would save less than 1 % of the time to the first token."
        in trace.notices
    )


def halved(adapter: object, prompt: object, method: Method, elapsed: object) -> tuple[Method, str]:
    return replace(method, budget=0.5), "Half of them."


@pytest.mark.parametrize("asked", ["method", "budget", "limits"])
def test_what_was_asked_for_is_obeyed(uniform: Model, features: Features, asked: str) -> None:
    given = {
        "method": {"method": omnidrop.Random(budget=0.5)},
        "budget": {"method": uniform.method(0.5)},
        "limits": {"limits": SimpleNamespace(choose=halved)},
    }[asked]
    with uniform.features(features) as clip:
        trace = clip.ask(QUESTION, options=SHORT, **given).trace
    assert trace.asked_budget == 0.5
    assert trace.method["name"] == ("random" if asked == "method" else "uniform")
    assert trace.realised_budget == pytest.approx(0.5, abs=0.01)
    assert not any(notice.startswith("Every token") for notice in trace.notices)


def test_a_budget_out_of_reach_on_a_short_clip_keeps_everything(
    model: Model, features: Features
) -> None:
    before, model.recommended = model.recommended, Recommended("fastv", 0.05, "a test")
    try:
        with model.features(features) as clip:
            trace = clip.ask(QUESTION, options=SHORT).trace
    finally:
        model.recommended = before
    assert trace.realised_budget == 1.0
    assert any("fastv cannot drop so many" in notice for notice in trace.notices)


# The arithmetic


def published(name: str) -> Shapes:
    return next(f.published[name] for f in families() if name in f.published)


def share_saved(av: int, kept: float, *, device: str = "cpu", seconds: float = 10.0) -> float:
    shapes = published("Qwen/Qwen2.5-Omni-7B")
    kinds = torch.tensor([Kind.TEXT] * 60 + [Kind.VIDEO] * av, dtype=torch.int8)
    none = torch.zeros(av + 60, dtype=torch.int32)
    tokens = TokenMap(kinds, none, none[:, None].expand(-1, 3))
    prompt = Prompt(none, none.expand(3, -1), tokens, av + 60)
    encoded = Encoded(
        Media(grid=(10, 16, 16), second_per_grid=1.0, audio_tokens=250),
        (),
        None,
        None,
        used=Used(20, seconds, seconds),
    )
    counts = (round(kept * av),) * shapes.text.layers
    return worth.saving(shapes, device, prompt, encoded, counts)


def test_more_is_saved_of_a_longer_prompt_and_by_dropping_more() -> None:
    assert share_saved(4000, 1.0) == 0.0
    assert 0 < share_saved(4000, 0.5) < share_saved(4000, 0.2) < 1
    assert share_saved(900, 0.3, device="cuda") < share_saved(20_000, 0.3, device="cuda")


def test_a_gpu_saves_nothing_where_the_host_cannot_launch_faster() -> None:
    assert share_saved(200, 0.1, device="cuda") == 0.0
    assert share_saved(200, 0.1, device="cpu") > 0.2


def test_reading_a_long_clip_takes_time_that_dropping_does_not_save() -> None:
    assert share_saved(4000, 0.3, device="cuda", seconds=600) < share_saved(
        4000, 0.3, device="cuda", seconds=10
    )


@pytest.mark.parametrize(("clip", "drops"), [("duet", True), ("long", True), ("silent", False)])
def test_of_the_sample_clips(demo: Model, samples, clip: str, drops: bool) -> None:
    """Measured: 20 % of the processor time on duet, 48 on long, 9 on silent."""
    with demo.open(samples / f"{clip}.mp4") as opened:
        trace = opened.ask(QUESTION, anyway=True, options=GenerateOptions(max_new_tokens=1)).trace
    assert trace.drops == drops
    assert (trace.method["default"]["saving"] >= worth.LEAST) == drops


# What is recommended


def test_every_recommended_method_can_be_made() -> None:
    found = [SAFE, *(r for family in families() for r in family.recommended.values())]
    assert len(found) >= 4
    for one in found:
        method = method_of(one)
        assert method.budget == one.budget
        assert one.source
        assert method_of(one, 0.7).budget == 0.7
        assert method_of(one, one.budget, exact=False).budget == one.budget


def test_published_models_have_the_papers_schedule() -> None:
    seven = recommended_by_name("7b")
    assert method_of(seven) == omnidrop.OmniDrop.paper("7B", 0.3)
    assert method_of(seven, 0.2) == omnidrop.OmniDrop.paper("7B", 0.2)
    assert method_of(seven, 0.25) == omnidrop.OmniDrop(budget=0.25)
    assert "2605.14458" in seven.source


def test_names_that_stand_for_no_listed_model() -> None:
    qwen = next(f for f in families() if "3b" in f.aliases)
    assert recommended_for("my-own-model", qwen) == SAFE
    assert recommended_for("qwen2.5-omni-3b", qwen) == qwen.recommended["Qwen/Qwen2.5-Omni-3B"]
    assert recommended_for("anything", MADE_UP).method == "uniform"
    assert recommended_for("x", SimpleNamespace(name="an older family")) == SAFE
    assert recommended_by_name("somebody/some-model") == SAFE


def test_a_default_may_be_replaced_and_a_bad_budget_is_refused(model: Model) -> None:
    before = model.recommended
    model.recommended = UNIFORM
    try:
        assert model.method() == omnidrop.Uniform(budget=0.4)
        with pytest.raises(UsageError):
            model.method(1.5)
    finally:
        model.recommended = before


# --check


def test_the_check_asks_with_every_token(model: Model, features: Features) -> None:
    with model.features(features) as clip:
        pruned = clip.ask(QUESTION, method=omnidrop.Random(budget=0.1), options=SHORT, check=True)
        alone = clip.ask(QUESTION, method=omnidrop.Random(budget=0.1), options=SHORT)
        full = clip.ask(QUESTION, method=Method(), options=SHORT)
    assert pruned.unpruned_text == full.text
    assert (pruned.text, pruned.token_ids) == (alone.text, alone.token_ids)
    assert alone.unpruned_text is None
    assert alone.checked is None


def test_the_check_of_an_unpruned_answer_asks_nothing_more(
    model: Model, features: Features
) -> None:
    prefills = 0

    def count(_: object) -> None:
        nonlocal prefills
        prefills += 1

    with model.features(features) as clip:
        answer = clip.ask(QUESTION, method=Method(), options=SHORT, check=True, on_prefill=count)
    assert prefills == 1
    assert answer.unpruned_text == answer.text
    assert answer.checked == "Same answer with every token: yes."


def test_a_check_that_does_not_fit_into_memory_leaves_the_answer(
    model: Model, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model.features(features) as clip:
        ask = clip.ask

        def short(*args: object, **given: object) -> object:
            if given["method"] == Method():
                raise MemoryShortError("Not enough memory for 9 tokens.")
            return ask(*args, **given)

        monkeypatch.setattr(clip, "ask", short)
        answer = clip.ask(QUESTION, method=omnidrop.Random(budget=0.1), options=SHORT, check=True)
    assert answer.unpruned_text is None
    assert "With every token it could not be asked: Not enough memory for 9 tokens." in (
        answer.trace.notices
    )


def test_the_check_says_yes_or_what_the_other_answer_is(model: Model, features: Features) -> None:
    with model.features(features) as clip:
        answer = clip.ask(QUESTION, method=Method(), options=SHORT)
    said = {
        text: replace(answer, text="piano", unpruned_text=text).checked
        for text in ("piano", " piano\n", "flute", "")
    }
    assert said["piano"] == said[" piano\n"] == "Same answer with every token: yes."
    assert said["flute"] == "Same answer with every token: no (it is: flute)."
    assert said[""] == "Same answer with every token: no (it is: nothing)."


def test_a_default_is_planned_once(
    uniform: Model, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = []
    plan = omnidrop.Uniform.plan

    def counted(self, tokens, layers):
        planned.append(len(tokens))
        return plan(self, tokens, layers)

    monkeypatch.setattr(omnidrop.Uniform, "plan", counted)
    monkeypatch.setattr(worth, "LEAST", 0.0)
    with uniform.features(features) as clip:
        trace = clip.ask(QUESTION, options=SHORT).trace
        assert (trace.method["name"], len(planned)) == ("uniform", 1)
        clip.ask(QUESTION, method=uniform.method(), options=SHORT)
    assert len(planned) == 2
