"""docs/scale.md has the tables that measured rates give."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_scale", ROOT / "docs" / "make_scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(maker) -> None:
    assert maker.page() == maker.PAGE.read_text("utf-8"), "run: python docs/make_scale.py"


def test_the_arithmetic(maker) -> None:
    rate = {"ttft": 0.4, "per_token": 0.01}
    assert maker.seconds_of(rate) == pytest.approx(0.4 + 15 * 0.01)
    rates = maker.rates()
    assert rates["omnidrop 20%"]["ttft"] < rates["none"]["ttft"] < maker.reading()
    # 1 M clips: card hours are a million times a clip's seconds over 3600, printed whole.
    for rate in rates.values():
        assert f"| {1e6 * maker.seconds_of(rate) / 3600:,.0f} |" in maker.tables()
