"""Rows on a cluster of two nodes: the same answers as one process, with an actor killed halfway.

Clips are read by the actors, or by tasks of their own, of which some end in a clip.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from omnidrop.batch.answering import Answerer, AnswerOptions
from omnidrop.batch.ray import (
    READ_LIMIT,
    RayCrew,
    RayOptions,
    _Actor,
    _anywhere,
    _Ledger,
    _tasks,
)
from omnidrop.batch.ray_reading import MOST_LOSSES, Reading, read_groups
from omnidrop.batch.records import FIELDS, chosen
from omnidrop.batch.rows import Row, by_clip
from omnidrop.batch.run import RunHooks, RunOptions, run
from omnidrop.clip.options import ClipOptions
from omnidrop.clip.specs import MediaSpec
from omnidrop.errors import MediaError, ModelError, OutOfTimeError, UsageError
from omnidrop.models.locations import find
from omnidrop.models.unloaded import media_spec_of
from omnidrop.options import GenerateOptions, LoadOptions
from omnidrop.profiling.limits import Limits
from omnidrop.testing import media
from tests.batch import crashing

ROOT = Path(__file__).parents[2]
OPTIONS = AnswerOptions(load=LoadOptions(model="demo", device="cpu"))
QUESTIONS = ("Is there a piano?", "Which shape comes last?")


#: Fields of a record that are times, or sizes of the process.
TIMES = {"seconds", "ttft", "stages", "memory"}


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


def read_by_task(groups: list[Any], reading: Reading, ledger: _Ledger) -> list[Any]:
    """What a task of Ray Data would hand on, group by group."""
    pyarrow = pytest.importorskip("pyarrow")
    batch = pyarrow.table({"task": [pickle.dumps([group]) for group in groups]})
    ask = lambda what, *given: getattr(ledger, what)(*given)  # noqa: E731
    found = []
    for table in read_groups(batch, reading, ask):
        [task], read = table.column("task").to_pylist(), table.column("read")[0].as_buffer()
        found.append((pickle.loads(task)[0], pickle.loads(read)))
    return found


@pytest.mark.slow
def test_records_are_the_same_whoever_reads_the_clip(model, folder, clips, tmp_path) -> None:
    load = LoadOptions(model=str(folder), device="cpu", dtype="float32", offline=True)
    options = AnswerOptions(load, generate=GenerateOptions(max_new_tokens=3))
    cut = media.truncated(media.faststart_mp4(tmp_path / "cut.mp4", seconds=4.0))
    given = [
        Row("a", clips / "a.mp4", "What plays first?"),
        Row("a again", clips / "a.mp4", "And then?"),
        Row("span", clips / "b.mp4", "Which?", end=0.3),
        Row("cut", cut, "What is seen?"),
        Row("late", clips / "b.mp4", "Which?", start=7.0),
        Row("bad", clips / "bad.mp4", "Which?"),
        Row("none", clips / "none.mp4", "Which?"),
        Row("large", media.silent_mp4(tmp_path / "large.mp4", seconds=9.0), "Which?"),
    ]
    answerer = Answerer(options, model=model)
    spec, ledger = media_spec_of(find(str(folder), offline=True)), _Ledger()
    reads = {
        group[0].id: (answerer.answer_read(group, keys, read), read)
        for (group, keys), read in read_by_task(
            groups(answerer, given), Reading(spec, ClipOptions(), most=2.5e6), ledger
        )
    }
    assert not ledger.begun, "what was read is not counted"
    kinds = {name: type(read).__name__ for name, (_, read) in reads.items()}
    assert kinds == {
        "a": "ReadClip", "span": "ReadClip", "cut": "ReadClip", "late": "UsageError",
        "bad": "MediaError", "none": "MediaError", "large": "NoneType",
    }  # fmt: skip
    fields = tuple(name for name in FIELDS if name not in TIMES)
    direct = list(answerer.answer(given))
    assert len(direct) == len(given)
    apart = [record for records, _ in reads.values() for record in records]
    for one, other in zip(direct, apart, strict=True):
        assert chosen(one, {}, fields) == chosen(other, {}, fields)
        assert one.get("trace", {}).get("clip") == other.get("trace", {}).get("clip")
        assert one.get("token_ids") == other.get("token_ids")
    assert any("truncated" in note for note in direct[3]["trace"]["notices"])


def test_a_clip_at_which_readers_are_lost_is_given_up(clips: Path) -> None:
    given = [([Row("1", clips / "a.mp4", "?")], Answerer(OPTIONS).keys([Row("1", clips, "?")]))]
    reading, ledger = Reading(MediaSpec(), ClipOptions(), READ_LIMIT), _Ledger()
    name = "read for row 1"
    for _ in range(MOST_LOSSES):
        ledger.begin(name)
    [(_, read)] = read_by_task(given, reading, ledger)
    assert read.bytes > 0
    for _ in range(MOST_LOSSES + 1):
        ledger.begin(name)
    [(_, problem)] = read_by_task(given, reading, ledger)
    assert isinstance(problem, MediaError)
    assert "3 processes were lost while they read this clip" in str(problem)


def test_reading_has_a_limit_of_time(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> None:
        time.sleep(10)

    monkeypatch.setattr("omnidrop.clip.clip.open_clip", slow)
    reading = Reading(MediaSpec(), ClipOptions(), READ_LIMIT, timeout=0.05)
    problem = reading.read(Row("1", clips / "a.mp4", "?"))
    assert isinstance(problem, OutOfTimeError)
    assert "to read the clip and answer" in str(problem)


def sizes(
    options: AnswerOptions, asked: RayOptions, *nodes: tuple[float, float]
) -> tuple[Any, ...]:
    """Actors, cores, GPUs and readers on nodes of so many cores and GPUs."""
    told = [
        {"Alive": True, "Resources": {"CPU": cpu, "GPU": gpu, "object_store_memory": 4e8}}
        for cpu, gpu in nodes
    ]
    return tuple(RayCrew(options, asked)._sizes(SimpleNamespace(nodes=lambda: told)))


def test_cores_that_actors_leave_free_read() -> None:
    anywhere = replace(OPTIONS, load=LoadOptions(model="demo"))
    assert sizes(anywhere, RayOptions(), (16, 1), (32, 0)) == (1, 1.0, 1.0, 47, 1e8)
    assert sizes(anywhere, RayOptions(readers=8), (16, 1), (16, 1)) == (2, 1.0, 1.0, 8, 1e8)
    assert sizes(anywhere, RayOptions(readers=0), (16, 1)) == (1, 1.0, 1.0, 0, 1e8)
    # On CPUs the actors take all cores, unless some are set apart.
    assert sizes(OPTIONS, RayOptions(), (16, 1)) == (4, 4.0, 0.0, 0, 1e8)
    assert sizes(OPTIONS, RayOptions(), (18, 0)) == (4, 4.0, 0.0, 2, 1e8)
    assert sizes(OPTIONS, RayOptions(readers=4), (16, 0)) == (3, 4.0, 0.0, 4, 1e8)
    assert sizes(OPTIONS, RayOptions(actors=2, read_limit=7), (16, 0)) == (2, 4.0, 0.0, 8, 7)
    assert sizes(OPTIONS, RayOptions(actors=9, cpus=1), (2, 0), (2, 0))[:4] == (9, 1.0, 0.0, 0)
    limits = replace(OPTIONS, limits=Limits(memory=1e9), fit_fps=True)
    assert sizes(limits, RayOptions(), (18, 0))[3] == 0
    with pytest.raises(UsageError, match="leave no core free"):
        sizes(OPTIONS, RayOptions(actors=4, readers=1), (16, 0))


def test_copies_of_a_clip_are_told_apart(tmp_path: Path) -> None:
    actor = _Actor(OPTIONS, None, None)
    Remote()(actor)
    given = [Row(str(number), tmp_path / f"{number}.mp4", "Which?") for number in range(9)]
    for row in given:
        row.clip.write_bytes(b"the same")
    task = groups(Answerer(OPTIONS), given)
    assert len({keys[row.id] for [row], keys in task}) == 1
    assert actor._split(task)[0] == []
    reading, ledger = Reading(MediaSpec(), ClipOptions(), READ_LIMIT), _Ledger()
    reads = [read for _, read in read_by_task(task, reading, ledger)]
    assert {str(read).partition(": ")[2] for read in reads} == {
        "The file holds text, whatever its name says. Name a video or audio file."
    }


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
    assert max(map(len, _tasks(given, 1, 1))) == 1, "a clip by itself, where tasks read"


def test_options() -> None:
    with pytest.raises(UsageError, match="address"):
        RayOptions(" ")
    for wrong in ({"actors": -1}, {"readers": -1}, {"read_limit": -1.0}):
        with pytest.raises(UsageError, match="0 or more"):
            RayOptions(**wrong)
    cuda = replace(OPTIONS, load=LoadOptions(device="cuda:3"))
    assert _anywhere(cuda, 1.0).load.device == "cuda"
    assert _anywhere(cuda, 0.0) == cuda
    sound = replace(OPTIONS, clip=ClipOptions(audio_file="a.wav"))
    assert _anywhere(sound, 0.0).clip.audio_file == Path("a.wav").absolute()


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
    """A head and a second node, of two cores each by name, on this machine."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    node = {"num_cpus": 2, "object_store_memory": 100_000_000}
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
    options = RunOptions(answer=OPTIONS, ray=RayOptions(cluster.address, actors=2, cpus=2))
    hooks, killed = killing("_Actor")
    tally = run(given, out, options, hooks)
    assert gone(killed)
    assert (tally.answered, tally.failed) == (29, 1)
    assert _told(out) == _told(alone)
    # Every row is in the file once, and the same command finds nothing left to ask.
    assert len(out.read_text().splitlines()) == 30
    began = time.monotonic()
    again = run(given, out, options)
    assert (again.asked, again.before, again.failed_before) == (0, 29, 1)
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_tasks_read_for_the_actors_and_may_end_in_a_clip(cluster, tmp_path: Path) -> None:
    given = rows(24)
    cut = media.truncated(media.faststart_mp4(tmp_path / "cut.mp4", seconds=4.0))
    (tmp_path / "bad.mp4").write_bytes(b"no clip at all")
    given += [
        Row("cut", cut, QUESTIONS[0]),
        Row("bad", tmp_path / "bad.mp4", QUESTIONS[0]),
        Row("large", ROOT / "samples" / "long.mp4", QUESTIONS[0]),
    ]
    options = replace(OPTIONS, anyway=True)
    alone = tmp_path / "alone.jsonl"
    run(given, alone, RunOptions(answer=options))
    crash = tmp_path / "crash.mp4"
    shutil.copyfile(ROOT / "samples" / "duet.mp4", crash)
    crash.write_bytes(crash.read_bytes() + b"\0")
    given.insert(3, Row("crash", crash, QUESTIONS[0]))
    out = tmp_path / "answers.jsonl"
    on_ray = RayOptions(cluster.address, actors=2, cpus=1, read_limit=3e6)
    hooks, killed = killing("_Actor")
    hooks = replace(hooks, start_worker=crashing.while_reading)
    tally = run(given, out, RunOptions(answer=options, ray=on_ray), hooks)
    assert gone(killed)
    assert (tally.answered, tally.failed) == (25, 3)
    told = _told(out)
    assert "3 processes were lost while they read this clip" in told.pop("crash")["error"]
    assert told == _told(alone)
    assert len(out.read_text().splitlines()) == 28
    again = run(given, out, RunOptions(answer=options, ray=on_ray))
    assert (again.asked, again.before, again.failed_before) == (0, 25, 3)


def killing(name: str) -> tuple[RunHooks, list[int]]:
    """Hooks that kill a process of that name once six rows are done: no warning, no way to tell."""
    killed: list[int] = []

    def on_record(tally, row, record) -> None:
        if tally.asked >= 6 and not killed:
            found = [p.pid for p in psutil.process_iter(["cmdline"]) if name in _title(p)]
            assert found
            os.kill(found[0], signal.SIGKILL)
            killed.append(found[0])

    return RunHooks(on_record=on_record), killed


def gone(killed: list[int]) -> bool:
    [pid] = killed
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def _title(process: psutil.Process) -> str:
    first = (process.info["cmdline"] or [""])[0]
    return first if first.startswith("ray::") else ""


def _told(path: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        del record["seconds"]
        found[record["id"]] = record
    return found
