"""An estimate beside a running question changes nothing of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

pytest.importorskip("starlette")

from omnidrop.errors import OmniDropError
from omnidrop.options import LoadOptions
from omnidrop.serving import estimates
from omnidrop.serving.estimates import Costs
from omnidrop.serving.problems import Refused
from omnidrop.serving.warm import WarmModel


def test_a_models_shapes_are_read_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them sets the default dtype of the process, which a question would compute in."""
    warm = WarmModel(LoadOptions(model="demo"), None)
    seen: list[bool] = []

    def describe(options: Any) -> Any:
        seen.append(warm.info().busy)
        raise OmniDropError("It is described.")

    monkeypatch.setattr(estimates, "describe", describe)
    costs = Costs(warm)
    with pytest.raises(OmniDropError, match="described"):
        costs._machine()
    assert seen == [True]
    assert not warm.info().busy
    warm.close()


def test_an_estimate_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "PATIENCE", 0.05)
    warm = WarmModel(LoadOptions(model="demo"), None)
    told: list[Refused] = []

    def ask() -> None:
        with pytest.raises(Refused) as refused:
            Costs(warm)._machine()
        told.append(refused.value)

    with warm.turn():
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(20)
    assert [(one.status, one.code) for one in told] == [(503, "busy")]
    warm.close()
