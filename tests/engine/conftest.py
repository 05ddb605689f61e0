"""Fixtures of the engine's tests: a tiny model of each family."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnidrop.testing import tiny_checkpoint

#: Every test that uses `folder`, `model` or `features` runs with each family.
FAMILIES = ("qwen2_5_omni", "made_up_omni")


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)
