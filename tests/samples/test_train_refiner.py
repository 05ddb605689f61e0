"""EchoingPixels on the demo model: the trunk for training is the engine's pass, and it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from avsynth.questions import Question
from recipe.answering import decode, media_sample
from recipe.batches import SYSTEM, Collator
from recipe.checkpoint import read, write
from recipe.language import Source
from recipe.refining import RefinedTrunk, refiner_for
from recipe.shape import build_model, parts
from recipe.vocab import build_tokenizer
from train_demo_refiner import OPTIONS, Run

import omnidrop
from omnidrop.engine.decode import GenerateOptions
from omnidrop.pruning.methods.echoingpixels import EchoingPixels

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
TOK = build_tokenizer()


def small(layers: int = 2) -> RefinedTrunk:
    """A decoder of few layers with random weights, behind a refiner."""
    torch.manual_seed(0)
    model = build_model(TOK, layers)
    return RefinedTrunk(parts(model).text, model.lm_head, refiner_for(model))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    run = Run(tmp_path_factory.mktemp("nothing"))
    return Source(TOK, run.speaker, replace(OPTIONS, clips=2, max_s=5.5))


@pytest.fixture(autouse=True)
def _in_float32(monkeypatch) -> None:
    for module in ("trunk", "refining"):
        monkeypatch.setattr(f"recipe.{module}.working_dtype", lambda device: torch.float32)


def test_the_first_steps_lower_the_loss(source) -> None:
    trunk, batch = small().train(), next(source)
    optimiser = torch.optim.AdamW(trunk.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        logits, probed = trunk(batch)
        assert not probed
        loss = F.cross_entropy(logits, batch.want)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_gradients_reach_scores_refiner_and_decoder(source) -> None:
    trunk, batch = small().train(), next(source)
    logits, _ = trunk(batch)
    F.cross_entropy(logits, batch.want).backward()
    for name, weight in trunk.named_parameters():
        assert weight.grad is not None, name
        # A number added to every score changes nothing.
        if name != "refiner.score_head.2.bias":
            assert float(weight.grad.abs().sum()) > 0, name


def test_the_published_number_of_tokens_enters(source) -> None:
    trunk, batch = small().eval(), next(source)
    first, last = batch.blocks
    with torch.no_grad():
        clip = torch.randn(len(batch.ids), last - first, 192)
        place, there, soft = trunk._choose(clip, batch.real)
        scores = trunk.refiner.score(clip)
    for row, real in enumerate(batch.real):
        kept = place[row][there[row]]
        count = -(-int(real.sum()) // 5)
        assert len(kept) == count
        assert bool((kept.diff() > 0).all())
        best = torch.where(real, scores[row], -torch.inf).topk(count).indices
        assert sorted(best.tolist()) == kept.tolist()
        assert float(soft[row][there[row]].sum()) < 1


def test_answers_and_padding_are_not_seen_by_the_refiner(source) -> None:
    """Another answer, teacher-forced, changes no logits of its first token."""
    trunk, batch = small().eval(), next(source)
    ids = batch.ids.clone()
    for row, col in zip(batch.rows[batch.first], batch.cols[batch.first], strict=True):
        ids[row, int(col) + 1 :] = 7
        padding = ~batch.mask[row, 0, col]
        padding[int(col) :] = False
        ids[row, padding] = 9
    with torch.no_grad():
        one, _ = trunk(batch)
        two, _ = trunk(replace(batch, ids=ids))
    torch.testing.assert_close(one[batch.first], two[batch.first], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Run:
    """A model as it is written before its first step."""
    run = Run(tmp_path_factory.mktemp("refined"))
    _, trunk = run.trunk()
    # As it is written: in 16 bits.
    state = {name: w.bfloat16().float() for name, w in trunk.state_dict().items()}
    write(run.out / "refined.pt", {"trunk": state, "step": 0, "error": {}})
    run.export()
    return run


@pytest.mark.slow
def test_the_engine_computes_what_is_trained(untrained: Run) -> None:
    """Of a real clip: the same logits, by the written model and the method."""
    question = "What instrument plays last?"
    model = omnidrop.load(str(untrained.folder), device="cpu", dtype="float32")
    thinker, trunk = untrained.trunk()
    trunk.load_state_dict(read(untrained.out / "refined.pt")["trunk"])
    trunk.eval()
    sample = media_sample(thinker.eval(), *decode(SAMPLES / "duet.mp4"))
    asked = Question(question, "flute", (), "x", "both", False, True)
    batch = Collator(TOK)([sample], [[asked]], [SYSTEM])
    trunk.share = 0.25
    with torch.no_grad():
        wanted = trunk(batch)[0][0]
    place, there, _ = chosen(trunk, batch)
    kept = (place[0][there[0]] + batch.blocks[0]).tolist()
    found = []
    with model.open(SAMPLES / "duet.mp4") as clip:
        answer = clip.ask(
            question,
            method=EchoingPixels(budget=len(kept) / len(sample.layout.index)),
            options=GenerateOptions(max_new_tokens=2, survivors=True),
            on_prefill=found.append,
        )
    assert list(answer.trace.survivors[0]) == kept
    torch.testing.assert_close(found[0].logits, wanted, atol=2e-3, rtol=1e-3)


def chosen(trunk: RefinedTrunk, batch):
    """The choice of a trunk's forward pass."""
    seen = []
    original = trunk._choose
    trunk._choose = lambda *given: seen.append(original(*given)) or seen[-1]
    with torch.no_grad():
        trunk(batch)
    return seen[0]


@pytest.mark.slow
def test_the_written_folder(untrained: Run) -> None:
    names = {path.name for path in untrained.folder.iterdir()}
    assert {"config.json", "model.safetensors", "refiner", "world.json"} <= names
    assert not names & {"calibration.json", "evidence.json"}, "these are of another decoder"
    rope = json.loads((untrained.folder / "config.json").read_text())["text_config"]
    assert rope["rope_parameters"]["rope_type"] == "sync"
    assert rope["rope_parameters"]["mrope_section"] == [9, 9, 9, 5]
    known = json.loads((untrained.folder / "refiner" / "refiner.json").read_text())
    assert known["shape"]["sections"] == [9, 9, 9, 5]
    assert known["training"]["decoder"] == "trained"


@pytest.mark.slow
def test_a_training_goes_on_where_it_stopped(tmp_path) -> None:
    log: list[str] = []
    few = replace(OPTIONS, steps=2, horizon=4, clips=2, warmup=1, max_s=5.5)
    for steps in (2, 4, 4):
        run = Run(tmp_path, replace(few, steps=steps), clips=4, log=log.append)
        run.pool()
        course = run.refine()
        assert course.step == steps
    assert course.begin == 4
    run.export()
    assert read(tmp_path / "refined.pt")["step"] == 4
    model = omnidrop.load(str(run.folder), device="cpu")
    with model.open(SAMPLES / "duet.mp4") as clip:
        answer = clip.ask("What instrument plays first?")
    assert answer.trace.method["name"] == "echoingpixels"
