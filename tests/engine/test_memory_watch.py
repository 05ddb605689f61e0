"""Peak memory by stage."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from omnidrop.engine.memory import MemoryWatch
from omnidrop.engine.timing import Meter

CPU = torch.device("cpu")


def test_watch_credits_the_stage_that_holds_the_memory() -> None:
    with MemoryWatch(CPU) as watch:
        meter = Meter(CPU)
        with meter.stage("small"):
            time.sleep(0.01)
        with meter.stage("outer"), meter.stage("large"):
            held = np.ones(30_000_000)
            time.sleep(0.01)
        del held
    peaks = watch.peaks
    large, small = peaks["large"].host or 0, peaks["small"].host or 0
    assert large - small > 200e6
    assert (peaks["outer"].host or 0) >= large
    assert peaks["large"].device is None
    assert Meter(CPU)._watch is None


def test_watch_folds_the_device_peaks_of_nested_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"now": 5, "peak": 5}

    def allocate(count: int) -> None:
        held["now"] = count
        held["peak"] = max(held["peak"], count)

    def reset(device: torch.device) -> None:
        held["peak"] = held["now"]

    monkeypatch.setattr("omnidrop.engine.memory.device_peak", lambda device: held["peak"])
    monkeypatch.setattr("omnidrop.engine.memory.reset_device_peak", reset)
    with MemoryWatch(CPU) as watch:
        meter = Meter(CPU)
        with meter.stage("outer"):
            allocate(7)
            with meter.stage("inner"):
                allocate(90)
                allocate(6)
            with meter.stage("beside", overlapped=True):
                allocate(8)
        with meter.stage("after"):
            allocate(9)
    peaks = {name: memory.device for name, memory in watch.peaks.items()}
    assert peaks == {"outer": 90, "inner": 90, "beside": None, "after": 9}
