"""The engine's tests run over a tiny model of each family."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnidrop.models.qwen2_5_omni.tiny import tiny_thinker
from omnidrop.testing.made_up_family import write_checkpoint

#: Everything that asks for `folder`, `model` or `features` runs over each.
FAMILIES = {"qwen2_5_omni": tiny_thinker, "made_up": write_checkpoint}


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
