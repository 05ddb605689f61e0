"""Fixtures of the engine's tests: a tiny model of each family."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model, load
from omnidrop.options import LoadOptions
from omnidrop.testing import tiny_checkpoint
from tests.tiny import load_tiny, make_features

#: Every test that uses `folder`, `model` or `features` runs with each family.
FAMILIES = (
    "qwen2_5_omni",
    pytest.param("qwen3_omni_moe", marks=pytest.mark.slow),
    pytest.param("qwen2_5_vl", marks=pytest.mark.slow),
    pytest.param("made_up_omni", marks=pytest.mark.slow),
)


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


# Pytest caches a fixture by where it is defined: inherited ones would stay those of one family.
@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    return load_tiny(folder)


@pytest.fixture(scope="session")
def features(model: Model) -> Features:
    return make_features(model=model)


@pytest.fixture(scope="session")
def demo() -> Model:
    """The demo model; it reads `samples` as they are."""
    return load(LoadOptions(model="demo", device="cpu", offline=True))


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of the sample clips."""
    return Path(__file__).resolve().parents[2] / "samples"
