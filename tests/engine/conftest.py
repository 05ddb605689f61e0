"""The engine's tests run over a tiny model of each family."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnidrop.testing import tiny_checkpoint

#: Everything that asks for `folder`, `model` or `features` runs over each.
FAMILIES = ("qwen2_5_omni", "made_up_omni")


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)
