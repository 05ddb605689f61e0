"""Training of the audio selector: the loss falls, it goes on after a stop, the result is used."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.errors import MediaError, ModelError, UsageError
from omnidrop.models.gradients import RECOMPUTED_FROM, Decoder
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from omnidrop.pruning.methods.omnisift import OmniSift
from omnidrop.pruning.parts import selector as parts
from omnidrop.pruning.parts.trained import Network
from omnidrop.testing import made_up_family
from omnidrop.training.lessons import Kept, Teacher
from omnidrop.training.resuming import STATE
from omnidrop.training.selector import Lesson, SelectorOptions, train
from tests.tiny import load_tiny, make_features

QUESTION = "What instrument plays first?"
SMALL = SelectorOptions(hidden=16, heads=4, batch=2, rate=1e-2, save_every=3, seed=1)
CLIPS = 5


@pytest.fixture(scope="module")
def clips(model: Model) -> dict[Path, Features]:
    return {Path(f"clip{i}"): make_features(seed=i, model=model) for i in range(CLIPS)}


LESSONS = [
    Lesson(Path(f"clip{i}"), f"{QUESTION} {n}", answer)
    for i in range(CLIPS)
    for n, answer in enumerate(("piano", "flute"))
]


@pytest.fixture
def taught(model: Model, clips: dict[Path, Features]):
    def call(folder: Path, options: SelectorOptions = SMALL, lessons=LESSONS, of=model, **more):
        return train(
            of, lessons, folder, options, open_clip=lambda one: of.features(clips[one.clip]), **more
        )

    return call


class Stopped(Exception):
    """In place of Ctrl-C."""


def stopping_at(step: int):
    def progress(stage: str, done: float, total: float | None) -> None:
        if stage == "training" and done == step:
            raise Stopped

    return progress


# The loss ---------------------------------------------------------------------------------------


def test_the_loss_is_what_the_engine_says_of_the_answer(model, clips, tmp_path) -> None:
    """Every token kept, and with a selector: the same logits as `ask` chooses tokens by."""
    adapter, lesson = model.adapter, LESSONS[0]
    network = parts.Selector(parts.Shape(model.info.text.hidden, 16, 4)).eval()
    known = Network(network, asdict(network.shape), fingerprint=adapter.fingerprint)
    parts.KIND.save(tmp_path, known)
    teacher = Teacher(adapter, adapter.decoder(), budget=0.4)
    ids = teacher.answer_ids(lesson.answer)
    assert int(ids[-1]) in adapter.stop_ids
    with model.features(clips[lesson.clip]) as session:
        encoded = session.encode()
        prompt = build_prompt(adapter.text, adapter.template, lesson.question, encoded.media)
        for kept, method in (
            (Kept.WHOLE, Method()),
            (Kept.SELECTED, OmniSift(budget=0.4, selector=str(tmp_path))),
        ):
            with torch.no_grad():
                loss = float(teacher.loss(network, lesson, encoded, kept))
            told = forced(session, lesson.question, method, ids)
            assert loss == pytest.approx(told, abs=2e-5)
    assert len(prompt) > 100


def forced(session, question: str, method: Method, ids: torch.Tensor) -> float:
    """The mean surprise of an answer's tokens, by the engine's own prefill and cache."""
    adapter, found = session.adapter, []

    def see(prefilled) -> None:
        logits, cache = prefilled.logits, prefilled.cache
        for number, token in enumerate(ids.tolist()):
            found.append(-float(logits.log_softmax(-1)[token]))
            hidden = adapter.embed(torch.tensor([token]))[None]
            place = torch.tensor(prefilled.next_position + number).expand(3, 1)
            rotary = adapter.rotary(place)
            for layer in range(adapter.info.text.layers):
                hidden = adapter.layer(layer, hidden, rotary, cache)
            logits = adapter.logits(hidden)
        cache.rewind(tuple(n - len(ids) for n in cache.lengths))

    with torch.inference_mode():
        session.ask(
            question, method=method, options=GenerateOptions(max_new_tokens=1), on_prefill=see
        )
    return sum(found) / len(found)


def test_gradients_pass_straight_through(model, clips) -> None:
    """The forward pass is as without scores; the gradient of a score is that of a factor of 1."""
    adapter, lesson = model.adapter, LESSONS[0]
    network = parts.Selector(parts.Shape(model.info.text.hidden, 16, 4))
    teacher = Teacher(adapter, adapter.decoder(), budget=0.4)
    with model.features(clips[lesson.clip]) as session:
        encoded = session.encode()
    encoded = replace(
        encoded, planes=tuple(p.clone() for p in encoded.planes), audio=encoded.audio.clone()
    )
    seen = {}
    real = parts.sift

    def sift(*args):
        found = real(*args)
        scores = found.scores
        scores.retain_grad()
        seen["sifted"] = found
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnidrop.training.lessons.sift", sift)
        loss = teacher.loss(network, lesson, encoded)
    loss.backward()
    found = seen["sifted"]
    slope = found.scores.grad.clone()
    ranks = ranks_of_audio(adapter, lesson, encoded)

    def scaled(place: int, factor: float) -> float:
        audio = encoded.audio.clone()
        audio[ranks[int(found.keep[found.audio[place]])]] *= factor
        changed = replace(encoded, audio=audio)
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr(
                "omnidrop.training.lessons.sift", lambda *args: replace(found, scores=None)
            )
            return float(teacher.loss(network, lesson, changed))

    place = int(slope.abs().argmax())
    step = 1e-2
    numeric = (scaled(place, 1 + step) - scaled(place, 1 - step)) / (2 * step)
    assert scaled(place, 1.0) == float(loss.detach())
    assert numeric == pytest.approx(float(slope[place]), rel=0.05)


def ranks_of_audio(adapter, lesson, encoded) -> dict[int, int]:
    """Return the rank among the audio tokens of each AV token that is audio."""
    prompt = build_prompt(adapter.text, adapter.template, lesson.question, encoded.media)
    tokens = prompt.tokens.select(prompt.tokens.av)
    return {i: n for n, i in enumerate(tokens.audio.nonzero().flatten().tolist())}


def test_long_sequences_are_computed_again_and_not_held(model) -> None:
    decoder = model.adapter.decoder()
    count = RECOMPUTED_FROM
    hidden = torch.randn(count, model.info.text.hidden, requires_grad=True)
    positions = torch.arange(count).expand(3, -1)
    decoder.logits(hidden, positions, 1).logsumexp(-1).sum().backward()
    long = hidden.grad.clone()
    hidden.grad = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnidrop.models.gradients.RECOMPUTED_FROM", count + 1)
        decoder.logits(hidden, positions, 1).logsumexp(-1).sum().backward()
    assert torch.allclose(long, hidden.grad, atol=1e-6)


# Training ---------------------------------------------------------------------------------------


class Listening(Decoder):
    """In place of a model's: an answer is as likely as what stays of the clip points one way."""

    def __init__(self, model: Model, way: torch.Tensor) -> None:
        self.real, self.way = model.adapter.decoder(), way
        words = Teacher(model.adapter, self.real).answer_ids(LESSONS[0].answer)
        self.right = torch.zeros(model.info.text.vocab).index_fill(0, words, 1.0)

    def embed(self, ids):
        return self.real.embed(ids)

    def logits(self, hidden, positions, rows, planes=(), places=None):
        return (hidden[places] @ self.way).mean() * self.right.expand(rows, -1)

    def parameters(self):
        return {}

    def write(self, folder):
        raise NotImplementedError


@pytest.mark.slow
def test_it_learns_which_audio_the_answer_needs(model, clips, tmp_path, monkeypatch) -> None:
    """A third of the audio tells the answer; the selector comes to keep that, in new clips too."""
    adapter, lessons = model.adapter, LESSONS[::2]
    way = torch.nn.functional.normalize(torch.linspace(-1, 1, model.info.text.hidden), dim=0)
    stand_in = Listening(model, way)
    monkeypatch.setattr(adapter, "decoder", lambda: stand_in)
    telling, encodings = {}, {}
    for number, (path, features) in enumerate(clips.items()):
        draw = torch.Generator().manual_seed(number)
        with model.features(features) as session:
            encoded = session.encode()
        audio = torch.randn(encoded.audio.shape, generator=draw)
        telling[path] = torch.randperm(len(audio), generator=draw)[: len(audio) // 3]
        audio[telling[path]] += 8.0 * way
        encodings[path] = replace(encoded, audio=audio)

    def share(network: parts.Selector) -> float:
        """Return how much of what tells the answer stays, where as many audio tokens do."""
        found = []
        for lesson in lessons:
            encoded = encodings[lesson.clip]
            prompt = build_prompt(adapter.text, adapter.template, lesson.question, encoded.media)
            tokens = prompt.tokens.select(prompt.tokens.av)
            n_audio, n_video = len(telling[lesson.clip]), len(encoded.video)
            rows = encoded.in_prompt_order(tokens.video)[0]
            sifted = parts.sift(network, tokens, rows, n_audio, n_video)
            ranks = ranks_of_audio(adapter, lesson, encoded)
            kept = {ranks[i] for i in sifted.keep[sifted.audio].tolist()}
            found.append(len(kept & set(telling[lesson.clip].tolist())) / n_audio)
        return sum(found) / len(found)

    options = replace(SMALL, budget=0.3, steps=40)
    trained = train(
        model,
        lessons,
        tmp_path,
        options,
        open_clip=lambda one: nullcontext(SimpleNamespace(encode=lambda: encodings[one.clip])),
    ).trained
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        untrained = parts.Selector(trained.module.shape)
    # Measured: 0.94 after training and 0.30 before (seeds 0 to 5: 0.91 to 0.94, 0.15 to 0.64).
    assert share(trained.module) > 0.85
    assert share(untrained) < 0.5
    # Measured: 1.95 after training, 4.24 before, 4.30 evenly spaced.
    losses = trained.training
    assert losses["held_out_loss"] < losses["held_out_loss_before"] - 1.5
    assert losses["held_out_loss"] < losses["held_out_loss_even"] - 1.5
    assert losses["loss"] < losses["loss_before"] - 1.5


@pytest.mark.slow
def test_only_the_selector_is_trained_and_it_is_used(model, clips, taught, tmp_path) -> None:
    before = {n: p.clone() for n, p in model.adapter.decoder().parameters().items()}
    result = taught(tmp_path, replace(SMALL, steps=10))
    losses = result.trained.training
    assert (losses["clips"], losses["held_out_clips"]) == (4, 1)
    assert (losses["questions"], losses["held_out_questions"]) == (8, 2)
    assert losses["parameters"] == sum(
        v.numel() for v in load_file(tmp_path / "selector.safetensors").values()
    )
    assert {path.name for path in tmp_path.iterdir()} == {"selector.safetensors", "selector.json"}
    told = json.loads((tmp_path / "selector.json").read_text())
    assert told["training"]["decoder"] == "frozen"
    assert (told["backbone"], told["fingerprint"]) == (
        model.info.name,
        model.adapter.fingerprint,
    )
    for name, weight in model.adapter.decoder().parameters().items():
        assert torch.equal(weight, before[name])
        assert not weight.requires_grad
    with model.features(clips[Path("clip0")]) as session:
        method = OmniSift(budget=0.4, selector=str(tmp_path))
        trace = session.ask(
            QUESTION, method=method, options=GenerateOptions(max_new_tokens=2)
        ).trace
        assert trace.realised_budget == pytest.approx(0.4, abs=0.01)
        with pytest.raises(ModelError, match="omnidrop train-selector"):
            session.ask(QUESTION, method=OmniSift(budget=0.4))


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(taught, tmp_path) -> None:
    options = replace(SMALL, steps=8)
    whole = taught(tmp_path / "whole", options)
    with pytest.raises(Stopped):
        taught(tmp_path / "parts", options, progress=stopping_at(5))
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [STATE]
    with pytest.raises(UsageError, match=r"other settings \(rate: 0.01, not 0.02\)"):
        taught(tmp_path / "parts", replace(options, rate=2e-2))
    with pytest.raises(UsageError, match=r"\(question set: "):
        taught(tmp_path / "parts", options, LESSONS[2:])
    rest = taught(tmp_path / "parts", replace(options, save_every=4))
    assert (whole.begin, rest.begin) == (0, 3)
    one, other = (
        load_file(tmp_path / name / "selector.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    first = {**whole.trained.training, "save_every": 4}
    assert first == rest.trained.training


def test_a_damaged_state_is_said_to_be_one(taught, tmp_path) -> None:
    with pytest.raises(Stopped):
        taught(tmp_path, replace(SMALL, steps=8), progress=stopping_at(4))
    state = tmp_path / STATE
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(UsageError, match="unfinished training is damaged") as caught:
        taught(tmp_path, replace(SMALL, steps=8))
    assert "--force" in str(caught.value.hint)


@pytest.mark.slow
def test_the_seed_is_all_that_is_random(taught, tmp_path) -> None:
    options = replace(SMALL, steps=2)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first = taught(tmp_path / "a", options)
    again = taught(tmp_path / "b", options)
    other = taught(tmp_path / "c", replace(options, seed=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.trained.training == again.trained.training != other.trained.training


@pytest.mark.slow
def test_the_decoder_is_trained_too_and_written_as_a_model(folder, clips, taught, tmp_path) -> None:
    model = load_tiny(folder)
    before = {n: p.clone() for n, p in model.adapter.decoder().parameters().items()}
    options = replace(SMALL, steps=6, unfreeze=True, decoder_rate=1e-2)
    result = taught(tmp_path / "whole", options, of=model)
    losses = result.trained.training
    # Measured: 1.02 after, 6.57 before; with the decoder frozen it stays above 6.
    assert losses["loss"] < losses["loss_before"] - 4.0
    weights = model.adapter.decoder().parameters()
    assert all(not torch.equal(weights[name], before[name]) for name in before)
    assert not any(weight.requires_grad for weight in weights.values())

    tuned = load_tiny(tmp_path / "whole")
    assert tuned.adapter.fingerprint == model.adapter.fingerprint
    written = tuned.adapter.decoder().parameters()
    assert all(torch.equal(weights[name], written[name]) for name in weights)
    assert result.folder == tmp_path / "whole" / "selector"
    with tuned.features(clips[Path("clip0")]) as session:
        session.ask(
            QUESTION, method=OmniSift(budget=0.4), options=GenerateOptions(max_new_tokens=2)
        )
    stock = load_tiny(folder)
    with (
        stock.features(clips[Path("clip0")]) as session,
        pytest.raises(ModelError, match="trained together with a decoder"),
    ):
        session.ask(QUESTION, method=OmniSift(budget=0.4, selector=str(result.folder)))

    stopped = load_tiny(folder)
    with pytest.raises(Stopped):
        taught(tmp_path / "parts", options, of=stopped, progress=stopping_at(5))
    assert not any(w.requires_grad for w in stopped.adapter.decoder().parameters().values())
    goes_on = load_tiny(folder)
    taught(tmp_path / "parts", options, of=goes_on)
    again = goes_on.adapter.decoder().parameters()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


# What cannot be ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_clip_that_cannot_be_read_stops_no_other(model, clips, tmp_path) -> None:
    told = []

    def opened(lesson: Lesson):
        if lesson.clip.name == "clip2":
            raise MediaError("It cannot be read.", path=lesson.clip)
        return model.features(clips[lesson.clip])

    result = train(
        model, LESSONS, tmp_path, replace(SMALL, steps=6), open_clip=opened, on_failure=told.append
    )
    assert (result.failed, len(told)) == (1, 1)

    def none(lesson: Lesson):
        raise MediaError("It cannot be read.", path=lesson.clip)

    with pytest.raises(MediaError, match="None of the clips can be read"):
        train(model, LESSONS, tmp_path / "none", SMALL, open_clip=none)


def test_one_clip_is_not_enough(taught, tmp_path) -> None:
    with pytest.raises(MediaError, match="about 1 clip, and at least two"):
        taught(tmp_path, SMALL, LESSONS[:2])


def test_a_family_without_gradients_says_so(tmp_path) -> None:
    made_up = load_tiny(made_up_family.FAMILY.write_tiny(tmp_path / "model"))
    with pytest.raises(ModelError, match="no decoder that gradients flow through"):
        train(made_up, LESSONS, tmp_path / "out", SMALL)


def test_the_model_that_is_trained_is_not_overwritten(model, folder, taught) -> None:
    with pytest.raises(UsageError, match="cannot replace the model"):
        taught(folder, replace(SMALL, unfreeze=True))


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"epochs": 0},
        {"batch": 0},
        {"hidden": 12},
        {"held_out": 1.0},
        {"budget": 1.0},
        {"rate": 0.0},
        {"decoder_rate": 0.0},
        {"seed": -1},
    ],
)
def test_senseless_options_are_refused(fields) -> None:
    with pytest.raises(UsageError):
        SelectorOptions(**fields)
