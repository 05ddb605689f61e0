"""Calibration of a reading: hits, chance, the choice among candidates, and the file of the set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from omnidrop.errors import UsageError
from omnidrop.evaluation.evidence import (
    Seen,
    calibrate_reading,
    choose,
    halves,
    judge,
    measure,
    with_evidence,
)
from omnidrop.evaluation.items import Item, QuestionSet
from omnidrop.evaluation.question_files import read_items
from omnidrop.evaluation.runner import RunOptions
from omnidrop.evaluation.sets import read_set
from omnidrop.evidence import EvidenceReading
from omnidrop.pruning.method import Method
from omnidrop.pruning.methods.uniform import Uniform
from omnidrop.testing import media

LAYERS, HEADS, CHUNKS = 3, 4, 8
PLANTED = EvidenceReading((1,), "last", (2,))


def planted(number: int, draw: np.random.Generator, *, method: str = "none") -> Seen:
    """Noise everywhere, but head 2 of layer 1 of the last row looks at the evidence."""
    place = int(draw.integers(CHUNKS))
    attention = {rows: draw.random((LAYERS, HEADS, CHUNKS)) for rows in ("last", "question")}
    attention["last"][1, 2] = 0.01
    attention["last"][1, 2, place] = 1.0
    return Seen(
        Path(f"{number}.mp4"),
        method,
        1.0,
        tuple((2.0 * i, 2.0 * i + 2) for i in range(CHUNKS)),
        ((2.0 * place + 0.5, 2.0 * place + 1.5),),
        attention,
        draw.random((LAYERS, HEADS, CHUNKS)),
        np.full((LAYERS, CHUNKS), 10.0),
    )


def test_planted_attention_is_chosen() -> None:
    draw = np.random.default_rng(0)
    seen = [planted(i, draw) for i in range(60)]
    assert choose(seen) == PLANTED
    (rate,) = measure(seen, PLANTED)
    assert (rate.hits, rate.questions, rate.above_chance) == (60, 60, True)
    assert rate.chance == pytest.approx(1 / CHUNKS, abs=1e-4)
    (other,) = measure(seen, EvidenceReading((0,), "question"))
    assert other.share < 0.6
    assert not other.above_chance


def test_chance_is_that_of_a_moment_of_the_same_length() -> None:
    """Two of eight chunks: a moment of two at a random place meets the evidence in 2 of 7."""
    draw = np.random.default_rng(0)
    seen = planted(0, draw)
    seen = Seen(**{**vars(seen), "evidence": ((0.5, 1.0), (15.0, 16.0))})
    shares = [0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]
    assert judge(seen, shares).hit is False
    assert judge(seen, shares).chance == pytest.approx(2 / 7)
    shares = [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert judge(seen, shares).hit is True
    assert judge(seen, shares).share == pytest.approx(0.5)


def test_what_finds_nothing_is_a_miss() -> None:
    seen = planted(0, np.random.default_rng(0))
    assert judge(seen, None).hit is False
    assert judge(seen, [1 / CHUNKS] * CHUNKS).hit is False  # the whole clip is no moment


def test_each_method_has_its_rate() -> None:
    draw = np.random.default_rng(0)
    seen = [planted(i, draw, method=("none", "seats")[i % 2]) for i in range(10)]
    assert [rate.method for rate in measure(seen, PLANTED)] == ["none", "seats"]


def line(number: int, **rest: object) -> dict[str, object]:
    given = {"id": f"q{number}", "video": f"{number % 10}.mp4", "question": "What?"}
    return {**given, "answer": "piano", "evidence": [[0.0, 1.5]], **rest}


def written(folder: Path, lines: list[dict[str, object]]) -> Path:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_the_times_are_read_from_the_set(tmp_path) -> None:
    path = written(tmp_path, [line(0), line(1, evidence=[[1, 2], [3, 4.5]]), line(2, evidence=[])])
    found = read_items(path, tmp_path)
    assert [item.evidence for item in found] == [((0.0, 1.5),), ((1.0, 2.0), (3.0, 4.5)), ()]


@pytest.mark.parametrize(
    "value", ["soon", [1, 2], [[1]], [["a", "b"]], [[2, 1]], [[-1, 2]], [[0, float("inf")]]]
)
def test_times_that_are_none_name_the_line(tmp_path, value) -> None:
    path = written(tmp_path, [line(0), line(1, evidence=value)])
    with pytest.raises(UsageError, match=r"Line 2: evidence"):
        read_items(path, tmp_path)


def test_too_few_times_are_refused(tmp_path) -> None:
    items = tuple(Item(f"{i}", Path("a.mp4"), "What?", "x", evidence=((0, 1),)) for i in range(39))
    with pytest.raises(UsageError, match="39 questions"):
        with_evidence(QuestionSet("few", items, tmp_path))
    with pytest.raises(UsageError, match="No question says"):
        with_evidence(QuestionSet("none", (), tmp_path))


def test_a_half_with_too_few_is_refused(tmp_path) -> None:
    """All questions but one are about one clip: nothing is left to check by."""
    names = ["a.mp4"] * 50 + ["b.mp4"]
    items = tuple(Item(f"{i}", Path(n), "?", "x", evidence=((0, 1),)) for i, n in enumerate(names))
    with pytest.raises(UsageError, match="50 questions with a time, the others 1;"):
        halves(with_evidence(QuestionSet("lopsided", items, tmp_path)))


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> QuestionSet:
    folder = tmp_path_factory.mktemp("set")
    for number in range(4):
        media.mp4(folder / f"{number}.mp4", seconds=5.0, fps=4)
    lines = [line(i, video=f"{i % 4}.mp4", evidence=[[2.2, 3.5]]) for i in range(40)]
    return with_evidence(read_set(str(written(folder, lines))))


def test_both_halves_have_their_own_clips(questions) -> None:
    first, others = halves(questions)
    assert len(first) == len(others) == 20
    assert not {item.video for item in first} & {item.video for item in others}


@pytest.mark.slow
def test_a_reading_of_a_real_model_is_measured_on_the_other_half(model, questions) -> None:
    passes = []
    methods = [Method(), Uniform(budget=0.5)]
    reading = calibrate_reading(
        model, questions, methods, RunOptions(), on_pass=lambda: passes.append(1)
    )
    assert len(passes) == 2 * (2 * 20 + 20)
    assert [(r.method, r.budget, r.questions) for r in reading.rates] == [
        ("none", 1.0, 20),
        ("uniform", 0.5, 20),
    ]
    assert reading.source.endswith("2 clips that chose nothing")
    # The rates are those of the engine's own moments.
    for rate, method in zip(reading.rates, methods, strict=True):
        hits = 0
        shown = model.with_reading(
            EvidenceReading(
                reading.layers,
                reading.rows,
                reading.heads,
                reading.correction,
                tuple(replaced(r) for r in reading.rates),
            )
        )
        for item in halves(questions)[1]:
            with shown.open(item.video) as session:
                found = session.ask(item.question, method=method).trace.moments
            hits += bool(found) and found[0].start < 3.5 and found[0].end > 2.2
        assert hits == rate.hits


def replaced(rate):
    """The same rate, said to be above chance."""
    return type(rate)(**{**vars(rate), "low": 1.0, "chance": 0.0})
