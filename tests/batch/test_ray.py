"""Rows on a cluster of two nodes: the same answers as one process, with an actor killed halfway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from omnidrop.batch.answering import Answerer, AnswerOptions
from omnidrop.batch.ray import (
    MOST_LOSSES,
    RayCrew,
    RayOptions,
    _Actor,
    _anywhere,
    _Ledger,
    _tasks,
)
from omnidrop.batch.rows import Row, by_clip
from omnidrop.batch.run import RunHooks, RunOptions, run
from omnidrop.errors import ModelError, UsageError
from omnidrop.options import LoadOptions

ROOT = Path(__file__).parents[2]
OPTIONS = AnswerOptions(load=LoadOptions(model="demo", device="cpu"))
QUESTIONS = ("Is there a piano?", "Which shape comes last?")


def rows(count: int) -> list[Row]:
    names = ("duet", "flash", "pause", "portrait", "silent")
    clips = [ROOT / "samples" / f"{name}.mp4" for name in names]
    made = [
        Row(f"{clip.stem}-{start}-{number}", clip, question, start=float(start))
        for start in range(5)
        for clip in clips
        for number, question in enumerate(QUESTIONS)
    ]
    return [*made[: count - 1], Row("none", ROOT / "none.mp4", "Is there a piano?")]


class Remote:
    """A ledger in this process, called as if it were an actor."""

    def __init__(self) -> None:
        self.ledger = _Ledger()

    def __call__(self, actor: _Actor) -> None:
        actor._ask = lambda what, *given: getattr(self.ledger, what)(*given)  # type: ignore[method-assign]


def groups(answerer: Answerer, given: list[Row]) -> list[Any]:
    return [(group, answerer.keys(group)) for group in by_clip(given)]


def test_a_row_at_which_actors_are_lost_is_recorded_and_passed_over() -> None:
    actor, remote = _Actor(OPTIONS, None, None), Remote()
    remote(actor)
    task = groups(Answerer(OPTIONS), rows(3))
    name = task[0][0][1].id
    for lost in range(MOST_LOSSES + 1):
        assert [len(group) for group, _ in actor._split(task)[1]] == [2, 1], lost
        actor._on_row(task[0][0][0])
        actor._on_row(task[0][0][1])
        actor._on_row(task[1][0][0])
        remote.ledger.begun[f"row {task[0][0][0].id}"] = 1  # answered the first time
        remote.ledger.begun[f"row {task[1][0][0].id}"] = 1
    records, left = actor._split(task)
    assert [record["id"] for record in records] == [name]
    assert "3 actors were lost" in records[0]["error"]
    assert [[row.id for row in group] for group, _ in left] == [[task[0][0][0].id], ["none"]]


def test_a_clip_that_cannot_be_read_without_an_end_is_given_up() -> None:
    actor = _Actor(OPTIONS, None, None)
    Remote()(actor)
    task = groups(Answerer(OPTIONS), rows(3))
    for _ in range(MOST_LOSSES + 1):
        assert actor._split(task)[0] == []
    records, left = actor._split(task)
    assert len(records) == 3
    assert left == []


def test_tasks_hold_a_few_clips_under_absolute_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    given = [([Row(str(i), Path(f"samples/{i}.mp4"), "?")], {}) for i in range(33)]
    for actors, most in ((1, 4), (2, 4), (5, 1), (99, 1)):
        tasks = _tasks(given, actors)
        assert max(map(len, tasks)) == most
        assert [row.id for task in tasks for group, _ in task for row in group] == [
            str(i) for i in range(33)
        ]
    assert tasks[0][0][0][0].clip == ROOT / "samples" / "0.mp4"


def test_options() -> None:
    with pytest.raises(UsageError, match="address"):
        RayOptions(" ")
    with pytest.raises(UsageError, match="0 or more"):
        RayOptions(actors=-1)
    cuda = replace(OPTIONS, load=LoadOptions(device="cuda:3"))
    assert _anywhere(cuda, 1.0).load.device == "cuda"
    assert _anywhere(cuda, 0.0) == cuda


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModelError, match=r"omnidrop\[ray\]"), RayCrew(OPTIONS, RayOptions()):
        pass


def test_ray_is_not_imported_otherwise() -> None:
    code = "import sys, omnidrop.batch.run, omnidrop_cli.app; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head and a second node, of a core each, on this machine."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    made = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        made.add_node(**node)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.slow
def test_a_cluster_with_an_actor_killed_answers_as_one_process(cluster, tmp_path: Path) -> None:
    given = rows(30)
    alone = tmp_path / "alone.jsonl"
    run(given, alone, RunOptions(answer=OPTIONS))
    out = tmp_path / "answers.jsonl"
    options = RunOptions(answer=OPTIONS, ray=RayOptions(cluster.address, actors=2, cpus=1))
    killed: list[int] = []

    def on_record(tally, row, record) -> None:
        if tally.asked >= 6 and not killed:
            # Of the actors that hold a model, one is killed: no warning, no way to tell.
            found = [p for p in psutil.process_iter(["cmdline"]) if _holds_a_model(p)]
            assert found
            os.kill(found[0].pid, signal.SIGKILL)
            killed.append(found[0].pid)

    tally = run(given, out, options, RunHooks(on_record=on_record))
    assert killed
    assert not psutil.pid_exists(killed[0]) or psutil.Process(killed[0]).status() == "zombie"
    assert (tally.answered, tally.failed) == (29, 1)
    assert _told(out) == _told(alone)
    # Every row is in the file once, and the same command finds nothing left to ask.
    assert len(out.read_text().splitlines()) == 30
    began = time.monotonic()
    again = run(given, out, options)
    assert (again.asked, again.before, again.failed_before) == (0, 29, 1)
    assert time.monotonic() - began < 30


def _holds_a_model(process: psutil.Process) -> bool:
    words = process.info["cmdline"] or [""]
    return words[0].startswith("ray::MapWorker") or words[0].startswith("ray::MapBatches")


def _told(path: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        del record["seconds"]
        found[record["id"]] = record
    return found
