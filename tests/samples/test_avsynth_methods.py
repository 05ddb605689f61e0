"""Accuracy of the demo model on 20 rendered AVSynth clips, unpruned and pruned.

Bounds lie about two standard errors (of 20 clips) below the accuracy on all 100 clips
(`benchmarks/comparison/`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from avsynth import testset
from avsynth.media import write_clip
from avsynth.sound import load_bank

import omnidrop
from omnidrop.engine.decode import GenerateOptions

pytestmark = pytest.mark.slow

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
CLIPS = 20
METHODS = {
    "unpruned": omnidrop.Method(),
    "random": omnidrop.Random(budget=0.2),
    "omnidrop": omnidrop.OmniDrop(budget=0.2),
    "omnidrop, uniform entry": omnidrop.get_method("uniform+omnidrop", budget=0.2),
    "omnidrop-auto": omnidrop.OmniDropAuto(budget=0.1),
}


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("avsynth")
    model = omnidrop.load(str(SAMPLES / "demo-model"), device="cpu", offline=True)
    by_seed: dict[int, list[dict]] = {}
    for line in testset.read():
        by_seed.setdefault(line["seed"], []).append(line)
    hits: dict[str, list[bool]] = {name: [] for name in METHODS}
    bank = load_bank("test")
    for seed in list(by_seed)[:CLIPS]:
        path = folder / f"{seed}.mp4"
        write_clip(path, testset.test_clip(seed), bank)
        with model.open(path) as clip:
            for name, method in METHODS.items():
                for number, line in enumerate(by_seed[seed]):
                    options = GenerateOptions(max_new_tokens=6, seed=number)
                    said = clip.ask(line["question"], method=method, options=options).text
                    hits[name].append(said.strip().lower() == line["answer"])
    return {name: sum(marks) / len(marks) for name, marks in hits.items()}


def test_unpruned_answers_are_right(accuracy: dict[str, float]) -> None:
    assert accuracy["unpruned"] >= 0.93


def test_dropping_at_random_costs_answers(accuracy: dict[str, float]) -> None:
    assert accuracy["random"] <= accuracy["unpruned"] - 0.1


def test_pruned_answers_are_far_above_chance(accuracy: dict[str, float]) -> None:
    assert accuracy["omnidrop"] >= 0.58
    assert accuracy["omnidrop, uniform entry"] >= 0.76


def test_diverse_tokens_answer_better_than_random_ones_at_half_the_budget(
    accuracy: dict[str, float],
) -> None:
    assert accuracy["omnidrop-auto"] >= 0.87
    assert accuracy["omnidrop-auto"] >= accuracy["random"] + 0.07
