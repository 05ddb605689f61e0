"""A run from rows to a file: limits of time, processes that end, and every row once."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from omnidrop.batch import workers
from omnidrop.batch.answering import Answerer, AnswerOptions, Hooks, MethodChoice
from omnidrop.batch.rows import Row
from omnidrop.batch.run import RunHooks, RunOptions, Tally, run
from omnidrop.engine.session import Session
from omnidrop.errors import ModelError
from omnidrop.options import GenerateOptions, LoadOptions
from tests.batch.crashing import misbehave

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture
def options(folder: Path) -> AnswerOptions:
    load = LoadOptions(model=str(folder), device="cpu", dtype="float32", offline=True)
    short = GenerateOptions(max_new_tokens=4)
    return AnswerOptions(load, MethodChoice("uniform", 0.5), generate=short)


def written(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def misbehaving(monkeypatch):
    monkeypatch.setattr(Session, "ask", Session.ask)  # put back afterwards
    misbehave()


@pytest.mark.slow
def test_a_row_that_takes_too_long_is_ended(model, options, clips, misbehaving):
    rows = [
        Row("1", clips / "a.mp4", "What?"),
        Row("2", clips / "a.mp4", "slow?"),
        Row("3", clips / "a.mp4", "Which?"),
        Row("4", clips / "b.mp4", "slow?"),
        Row("5", clips / "b.mp4", "Then?"),
    ]
    answerer = Answerer(replace(options, timeout=3.0), model=model)
    found = {record["id"]: record for record in answerer.answer(rows)}
    assert [name for name in found if "error" not in found[name]] == ["1", "3"]
    assert found["2"]["error"].startswith("It took longer than 3 s to answer.")
    # Nothing was read of the clip by then, so its other rows are not tried.
    assert "to read the clip" in found["4"]["error"]
    assert found["5"]["cause"] == found["4"]["cause"]
    assert found["2"]["exit_code"] == 8


@pytest.mark.slow
def test_a_clip_that_is_not_opened_in_time_is_left(model, options, clips, monkeypatch):
    from threading import Event

    from omnidrop.engine.model import Model

    prepare, forever = Model.prepare, Event()

    def slow(self, source, options=None):
        if source.name == "b.mp4":
            forever.wait(30)
        return prepare(self, source, options)

    monkeypatch.setattr(Model, "prepare", slow)
    rows = [Row(name, clips / f"{name}.mp4", "What?") for name in "ba"]
    answerer = Answerer(replace(options, timeout=1.0), model=model)
    found = {record["id"]: record for record in answerer.answer(rows)}
    forever.set()
    assert found["b"]["exit_code"] == 8
    assert "error" not in found["a"]


def test_an_interrupt_ends_the_run_and_keeps_what_was_done(model, options, clips, tmp_path):
    rows = [Row(str(i), clips / "a.mp4", f"{i}?") for i in range(5)]

    def stop(tally, row, record):
        if tally.asked == 2:
            raise KeyboardInterrupt

    hooks = RunHooks(answer=Hooks(on_load=lambda _: model), on_record=stop)
    out, tally = tmp_path / "o.jsonl", Tally()
    with pytest.raises(KeyboardInterrupt):
        run(rows, out, RunOptions(options), hooks, tally=tally)
    assert (tally.asked, tally.total) == (2, 5)
    assert [row["id"] for row in written(out)] == ["0", "1"]
    done = run(rows, out, RunOptions(options), RunHooks(answer=Hooks(on_load=lambda _: model)))
    assert (done.answered, done.before) == (3, 2)
    assert [row["id"] for row in written(out)] == ["0", "1", "2", "3", "4"]
    assert [p.name for p in tmp_path.iterdir()] == ["o.jsonl"]


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(workers, "GRACE", 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_workers_answer_alike_and_one_that_crashes_is_replaced(model, options, clips, tmp_path):
    rows = [
        Row("1", clips / "a.mp4", "What?"),
        Row("2", clips / "a.mp4", "crash?"),
        Row("3", clips / "a.mp4", "Which?"),
        Row("4", clips / "b.mp4", "Then?"),
        Row("5", clips / "bad.mp4", "What?"),
    ]
    out = tmp_path / "o.jsonl"
    asked: list[str] = []
    hooks = RunHooks(start_worker=misbehave, on_asked=lambda row: asked.append(row.id))
    tally = run(rows, out, RunOptions(options, workers=2), hooks)
    found = {row["id"]: row for row in written(out)}
    assert len(written(out)) == len(rows)
    assert sorted(found) == sorted(set(asked)) == [row.id for row in rows]
    assert (tally.answered, tally.failed) == (3, 2)
    assert "ended (SIGABRT)" in found["2"]["error"]
    here = Answerer(options, model=model).answer([rows[i] for i in (0, 2, 3)])
    assert {r["id"]: r["text"] for r in here} == {n: found[n]["answer"] for n in "134"}


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_a_worker_that_hangs_is_ended_and_replaced(options, clips, tmp_path):
    rows = [Row("1", clips / "a.mp4", "hang?"), Row("2", clips / "b.mp4", "What?")]
    out = tmp_path / "o.jsonl"
    given = RunOptions(replace(options, timeout=5.0), workers=1)
    tally = run(rows, out, given, RunHooks(start_worker=misbehave))
    found = {row["id"]: row for row in written(out)}
    assert (tally.answered, tally.failed) == (1, 1)
    assert "took longer than 5 s" in found["1"]["error"]


@pytest.mark.slow
def test_a_worker_without_a_model_ends_the_run(options, clips, tmp_path, monkeypatch):
    load = replace(options.load, device="cuda:7")
    given = RunOptions(replace(options, load=load), workers=2)
    with pytest.raises(ModelError, match="no device cuda:7"):
        run([Row("1", clips / "a.mp4", "What?")], tmp_path / "o.jsonl", given)
    assert not (tmp_path / "o.jsonl").read_bytes()
