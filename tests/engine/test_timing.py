"""Stage times: wall-clock time, and a device's events without synchronising."""

from __future__ import annotations

import time

import pytest
import torch

from omnidrop.engine import timing as meters
from omnidrop.engine.timing import EventClock, Meter, WallClock, clock_of


class Device:
    """A simulated device with its own clock: work advances it, and the host does not wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits = 0

    def work(self, seconds: float) -> None:
        self.now += seconds

    def event(self) -> Event:
        return Event(self)


class Event:
    def __init__(self, device: Device) -> None:
        self._device = device
        self._at: float | None = None

    def record(self, stream: object) -> None:
        self._at = self._device.now

    def synchronize(self) -> None:
        self._device.waits += 1

    def elapsed_time(self, other: Event) -> float:
        assert self._at is not None
        assert other._at is not None
        return 1000.0 * (other._at - self._at)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    return Device()


def test_events_measure_the_devices_time_without_synchronising(device: Device) -> None:
    meter = Meter(torch.device("cpu"), EventClock(torch.device("cuda"), device.event))
    device.work(5.0)  # queued before: no part of the stage
    with meter.stage("prefill"):
        device.work(1.0)
        with meter.stage("selection"):
            device.work(0.25)
        device.work(1.0)
        with meter.stage("selection"):
            device.work(0.5)
    with meter.stage("prompt"):
        time.sleep(0.02)  # the host's work, while the device is busy
    assert device.waits == 0
    assert meter.names() == ("selection", "prefill", "prompt")
    assert device.waits == 0
    found = {stage.name: stage for stage in meter.stages()}
    assert found["prefill"].seconds == pytest.approx(2.75)
    assert found["selection"].seconds == pytest.approx(0.75)
    assert found["selection"].within == "prefill"
    assert found["prompt"].seconds == 0.0
    assert device.waits == 4
    # A second call counts nothing twice; another block of a stage adds up.
    with meter.stage("prefill"):
        device.work(1.0)
    seconds = {stage.name: stage.seconds for stage in meter.stages()}
    assert seconds["prefill"] == pytest.approx(3.75)
    assert seconds["selection"] == pytest.approx(0.75)
    assert device.waits == 5


def test_overlapped_stages_are_measured_in_wall_clock_time(device: Device) -> None:
    meter = Meter(torch.device("cpu"), EventClock(torch.device("cuda"), device.event))
    with meter.stage("frames", overlapped=True):
        device.work(100.0)
        time.sleep(0.01)
    (stage,) = meter.stages()
    assert stage.overlapped
    assert 0.01 <= stage.seconds < 10.0
    assert device.waits == 0


def test_a_stage_that_fails_is_counted(device: Device) -> None:
    meter = Meter(torch.device("cpu"), EventClock(torch.device("cuda"), device.event))

    def fail() -> None:
        with meter.stage("entry"):
            device.work(2.0)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert meter.stages()[0].seconds == pytest.approx(2.0)


def test_other_devices_are_synchronised_at_the_end_of_a_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(meters, "synchronize", waited.append)
    with Meter(torch.device("mps")).stage("prefill"):
        assert not waited
    assert waited == [torch.device("mps")]


def test_the_time_so_far_can_include_queued_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meters, "synchronize", lambda device: time.sleep(0.02))
    meter = Meter(torch.device("cpu"))
    assert meter.since_start() < 0.02 <= meter.since_start_done()


def test_each_device_has_its_clock() -> None:
    assert isinstance(clock_of(torch.device("cpu")), WallClock)
    assert isinstance(clock_of(torch.device("cuda")), EventClock)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
def test_a_gpus_stages() -> None:
    device = torch.device("cuda")
    a = torch.randn(4096, 4096, device=device)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    meter, began = Meter(device), time.perf_counter()
    with meter.stage("queued"):
        for _ in range(50):
            a @ a
    with meter.stage("nothing"):
        pass
    queued = time.perf_counter() - began
    torch.cuda.synchronize()
    took = time.perf_counter() - began
    seconds = {stage.name: stage.seconds for stage in meter.stages()}
    assert queued < took / 2
    assert seconds["queued"] == pytest.approx(took, rel=0.2)
    assert seconds["nothing"] < 0.1 * took
