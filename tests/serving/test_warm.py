"""A warm model: turns in order, loaded when needed, dropped when idle."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from omnidrop.errors import ModelError, UsageError
from omnidrop.options import LoadOptions
from omnidrop.serving.warm import WarmModel


class Loader:
    """Counts what it loads; `model.info` is what `WarmModel.info` reads."""

    def __init__(self) -> None:
        self.loads = 0
        self.stages: list[str] = []

    def __call__(self, options: LoadOptions, progress: Any) -> Any:
        self.loads += 1
        if progress is not None:
            progress("load", 0, None)
        return SimpleNamespace(
            info=SimpleNamespace(name=options.model, device="cpu", dtype="torch.float32")
        )


@pytest.fixture
def loader() -> Loader:
    return Loader()


def warm_model(loader: Loader, keep_alive: float | None = None) -> WarmModel:
    return WarmModel(LoadOptions(model="demo"), keep_alive, load=loader)


def wait_until(true: Any) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.002)


def test_it_is_loaded_at_the_first_use_and_kept(loader) -> None:
    warm = warm_model(loader)
    assert not warm.info().loaded
    with warm.use() as first:
        assert first.warm is False
    with warm.use() as second:
        assert second is first
        assert second.warm is True
    assert loader.loads == 1
    info = warm.info()
    assert (info.loaded, info.name, info.device, info.dtype) == (True, "demo", "cpu", "float32")
    assert (info.busy, info.waiting, info.uses) == (False, 0, 2)
    assert info.host_memory > 0
    assert info.device_memory is None


def test_progress_is_told_where_it_loads(loader) -> None:
    warm, told = warm_model(loader), []
    for _ in range(2):
        with warm.use(lambda *stage: told.append(stage)):
            pass
    assert told == [("load", 0, None)]


def test_askers_have_their_turns_in_the_order_they_came(loader) -> None:
    warm, order, threads = warm_model(loader), [], []

    def ask(number: int) -> None:
        with warm.use():
            assert warm.info().busy
            order.append(number)

    with warm.use():
        for number in range(20):
            threads.append(threading.Thread(target=ask, args=(number,)))
            threads[-1].start()
            wait_until(lambda: warm.info().waiting == len(threads))
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == list(range(20))
    assert not warm.info().busy


def test_a_turn_that_does_not_come_in_time_is_none(loader) -> None:
    warm = warm_model(loader)
    with warm.use():
        found: list[Any] = []

        def try_it() -> None:
            with warm.try_use(0.01) as model:
                found.append(model)

        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join(10)
        assert found == [None]
        assert warm.info().waiting == 0
    with warm.try_use(0.01) as model:
        assert model is not None


def test_who_gives_up_waiting_does_not_keep_the_turn(loader) -> None:
    """Timeouts that race with the turn being handed over must not lose it."""
    warm = warm_model(loader)

    def try_often() -> None:
        for _ in range(200):
            with warm.try_use(0.0002):
                pass

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with warm.try_use(1) as model:
        assert model is not None


def test_a_failed_load_gives_the_turn_back() -> None:
    def load(options: LoadOptions, progress: Any) -> Any:
        raise ModelError("There is no such model.")

    warm = WarmModel(LoadOptions(), load=load)
    for _ in range(2):
        with pytest.raises(ModelError, match="no such model"), warm.use():
            pass
    assert not warm.info().busy


def test_a_failed_use_gives_the_turn_back(loader) -> None:
    warm = warm_model(loader)
    with pytest.raises(ZeroDivisionError), warm.use():
        _ = 1 / 0
    with warm.try_use(0) as model:
        assert model is not None


def test_it_is_dropped_when_nobody_has_used_it_for_a_while(loader) -> None:
    warm = warm_model(loader, keep_alive=0.05)
    with warm.use():
        time.sleep(0.1)
        assert warm.info().loaded
    wait_until(lambda: not warm.info().loaded)
    with warm.use() as model:
        assert model.warm is False
    assert loader.loads == 2


@pytest.mark.slow
def test_every_use_starts_the_clock_anew(loader) -> None:
    warm = warm_model(loader, keep_alive=30)
    for _ in range(3):
        with warm.use():
            pass
    timers = threading.Timer
    wait_until(lambda: sum(isinstance(t, timers) for t in threading.enumerate()) <= 1)
    assert warm.info().idle < 30
    assert warm.unload()
    assert not warm.info().loaded


def test_it_may_be_dropped_after_every_use(loader) -> None:
    warm = warm_model(loader, keep_alive=0)
    with warm.use():
        assert warm.info().loaded
    assert not warm.info().loaded


def test_who_rests_lets_others_in_and_keeps_the_model(loader) -> None:
    warm, seen = warm_model(loader, keep_alive=0.01), []
    with warm.turn() as turn:
        model = turn.model()
        with turn.rest():
            with warm.use() as other:
                seen.append(other)
            time.sleep(0.05)
            assert not warm.unload()
        assert warm.info().busy
        assert turn.model() is model is seen[0]
    assert loader.loads == 1


def test_a_closed_one_takes_no_more_uses(loader) -> None:
    warm = warm_model(loader)
    with warm.use():
        warm.close()
        assert warm.info().loaded
    assert not warm.info().loaded
    with pytest.raises(ModelError, match="closed"), warm.use():
        pass
    assert not warm.info().busy


@pytest.mark.parametrize("keep_alive", [-1, float("nan")])
def test_a_wrong_time_is_refused(keep_alive) -> None:
    with pytest.raises(UsageError, match="keep_alive"):
        WarmModel(LoadOptions(), keep_alive)


@pytest.mark.slow
def test_a_real_one_says_in_the_trace_that_it_was_warm(folder: Path, features: Any) -> None:
    warm = WarmModel(LoadOptions(model=str(folder), dtype="float32", offline=True))
    found = []
    for _ in range(2):
        with warm.use() as model, model.features(features) as session:
            found.append(session.ask("What plays?").trace)
    assert [trace.warm for trace in found] == [False, True]
    assert found[0].to_dict()["warm"] is False
    assert found[0].load_seconds == found[1].load_seconds > 0
