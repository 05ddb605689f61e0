"""The queue before the model: places, time limits, cancellation; what is kept for later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from omnidrop.engine.conversation import Said
from omnidrop.options import LoadOptions
from omnidrop.serving.desk import Desk, Job, Stopped
from omnidrop.serving.problems import Refused
from omnidrop.serving.sessions import Sessions, Turns
from omnidrop.serving.warm import WarmModel

MODEL: Any = SimpleNamespace(info=SimpleNamespace(name="m", device="cpu", dtype="x"), adapter=1)


@pytest.fixture
def warm() -> WarmModel:
    return WarmModel(LoadOptions(model="m"), None, load=lambda options, progress: MODEL)


@pytest.fixture
def desk(warm: WarmModel) -> Iterator[Desk]:
    made = Desk(warm, 2)
    yield made
    made.stop()
    made.join()
    assert made.waiting == 0


class Gate:
    """Work that runs until it is let go, and checks meanwhile whether it is still wanted."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()

    def __call__(self, model: Any, job: Job) -> str:
        self.entered.set()
        while not self.let_go.wait(0.005):
            job.alive()
        return "done"


def submitted(desk: Desk, work: Callable[[Any, Job], Any], seconds: float = 30.0) -> Job:
    job = desk.reserve(seconds)
    job.submit(work)
    return job


def test_jobs_run_in_order_with_the_model(desk: Desk) -> None:
    seen: list[int] = []
    gate = Gate()
    first = submitted(desk, gate)
    others = [submitted(desk, lambda model, job, i=i: seen.append(i)) for i in range(2)]
    gate.let_go.set()
    assert first.done.result(5) == "done"
    for job in others:
        job.done.result(5)
    assert seen == [0, 1]


def test_a_full_queue_refuses(desk: Desk) -> None:
    gate = Gate()
    jobs = [submitted(desk, gate) for _ in range(3)]
    with pytest.raises(Refused) as caught:
        desk.reserve(1)
    assert caught.value.status == 429
    assert int(caught.value.headers()["Retry-After"]) >= 1
    gate.entered.wait(5)
    assert desk.waiting == 2
    jobs[1].cancel()
    desk.reserve(1).cancel()
    gate.let_go.set()
    assert jobs[2].done.result(5) == "done"
    with pytest.raises(Stopped):
        jobs[1].done.result(5)


def test_a_job_that_runs_is_stopped(desk: Desk) -> None:
    gate = Gate()
    job = submitted(desk, gate)
    assert gate.entered.wait(5)
    job.cancel()
    with pytest.raises(Stopped):
        job.done.result(5)
    assert submitted(desk, lambda model, job: 3).done.result(5) == 3


def test_a_job_has_its_time(desk: Desk) -> None:
    gate = Gate()
    job = submitted(desk, gate, 0.05)
    late = submitted(desk, lambda model, job: 3, 0.01)
    for one in (job, late):
        with pytest.raises(Stopped):
            one.done.result(5)


def test_a_failure_harms_no_other(desk: Desk) -> None:
    def broken(model: Any, job: Job) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        submitted(desk, broken).done.result(5)
    assert submitted(desk, lambda model, job: 3).done.result(5) == 3


def test_a_job_waits_for_its_turn_no_longer_than_its_time(warm: WarmModel, desk: Desk) -> None:
    with warm.use():
        job = submitted(desk, lambda model, job: 3, 0.1)
        with pytest.raises(Stopped):
            job.done.result(5)
    assert submitted(desk, lambda model, job: 3).done.result(5) == 3


def test_stopping_ends_what_runs_and_waits(warm: WarmModel) -> None:
    desk, gate = Desk(warm, 4), Gate()
    jobs = [submitted(desk, gate) for _ in range(3)]
    gate.entered.wait(5)
    placed = desk.reserve(10)
    desk.stop()
    desk.join()
    placed.submit(gate)
    for job in (*jobs, placed):
        with pytest.raises(Stopped):
            job.done.result(1)
    with pytest.raises(Refused) as caught:
        desk.reserve(1)
    assert caught.value.status == 503


def test_a_result_for_a_cancelled_future_is_dropped(desk: Desk) -> None:
    gate = Gate()
    job = submitted(desk, gate)
    assert gate.entered.wait(5)
    assert isinstance(job.done, Future)
    job.done.cancel()
    gate.let_go.set()
    assert submitted(desk, lambda model, job: 3).done.result(5) == 3


# Sessions and turns


class Session:
    """Stands in for a session of so many bytes."""

    def __init__(self, size: int, prefixes: int = 0) -> None:
        self.size, self.kept, self.closed = size, prefixes, False
        self.prefixes = SimpleNamespace(clear=self._clear)

    def _clear(self) -> None:
        self.kept = 0

    @property
    def bytes(self) -> int:
        return self.size + self.kept

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


def opened(sessions: Sessions, key: str, session: Session, model: Any = MODEL) -> Any:
    def opening(stack: ExitStack) -> Any:
        return session

    found = sessions.find(model, key, opening)
    sessions.used(key)
    return found


def test_the_least_recently_used_makes_room() -> None:
    sessions = Sessions(100)
    a, b, c = Session(40), Session(40), Session(40)
    opened(sessions, "a", a)
    opened(sessions, "b", b)
    assert opened(sessions, "a", Session(1)) is a
    opened(sessions, "c", c)
    assert (a.closed, b.closed, c.closed) == (False, True, False)
    assert sessions.bytes == 80
    assert (sessions.hits, sessions.misses) == (1, 3)
    sessions.clear()
    assert a.closed
    assert c.closed
    assert (len(sessions), sessions.bytes) == (0, 0)


def test_what_is_too_large_is_not_kept() -> None:
    sessions = Sessions(100)
    prefixed, large = Session(60, prefixes=80), Session(101)
    opened(sessions, "a", prefixed)
    assert not prefixed.closed
    assert sessions.bytes == 60
    opened(sessions, "b", large)
    assert large.closed
    assert "b" not in sessions


def test_another_model_starts_anew() -> None:
    sessions = Sessions(100)
    old = Session(10)
    opened(sessions, "a", old)
    opened(sessions, "a", Session(10), SimpleNamespace(adapter=2))
    assert old.closed
    assert len(sessions) == 1


def test_a_session_that_cannot_be_opened_leaves_nothing() -> None:
    sessions, closed = Sessions(100), []

    def opening(stack: ExitStack) -> Any:
        stack.callback(closed.append, True)
        raise KeyError

    with pytest.raises(KeyError):
        sessions.find(MODEL, "a", opening)
    assert closed == [True]
    assert len(sessions) == 0


def answer(question: str, text: str, ids: tuple[int, ...], stop: str = "stop token") -> Any:
    return SimpleNamespace(question=question, text=text, token_ids=ids, choices=(), stop=stop)


def test_turns_are_known_by_all_that_came_before() -> None:
    turns = Turns()
    turns.keep("clip", [], answer("a?", "A", (1, 2)))
    turns.keep("clip", [("a?", "A")], answer("b?", "B", (3,)))
    talk = [("a?", "A"), ("b?", "B")]
    assert turns.earlier("clip", talk) == (Said("a?", "A", (1, 2)), Said("b?", "B", (3,)))
    assert turns.earlier("other", talk)[0].token_ids is None
    assert turns.earlier("clip", [("a?", "Z"), ("b?", "B")])[1].token_ids is None
    assert turns.earlier("clip", [("a?", "A"), ("c?", "B")])[1].token_ids is None


def test_a_cut_answer_is_its_text() -> None:
    turns = Turns()
    turns.keep("clip", [], answer("a?", "A", (1, 2), "stop sequence"))
    assert turns.earlier("clip", [("a?", "A")]) == (Said("a?", "A"),)


def test_turns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from omnidrop.serving import sessions

    monkeypatch.setattr(sessions, "TURNS", 3)
    turns = Turns()
    for index in range(5):
        turns.keep("clip", [], answer(f"{index}?", "A", (index,)))
    assert len(turns) == 3
    assert turns.earlier("clip", [("0?", "A")])[0].token_ids is None
    assert turns.earlier("clip", [("4?", "A")])[0].token_ids == (4,)
    monkeypatch.setattr(sessions, "TURN_BYTES", 10)
    turns.keep("clip", [], answer("x?", "A", (1,)))
    assert len(turns) == 0


def test_a_dropped_model_closes_its_sessions() -> None:
    warm = WarmModel(LoadOptions(model="m"), 0.02, load=lambda options, progress: MODEL)
    sessions, held = Sessions(100), Session(10)
    warm.when_dropped(sessions.clear)
    with warm.use() as model:
        opened(sessions, "a", held, model)
    until = time.monotonic() + 5
    while not held.closed and time.monotonic() < until:
        time.sleep(0.01)
    assert held.closed
