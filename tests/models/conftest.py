"""Fixtures of the model tests: tiny checkpoints in both layouts, and an adapter of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnidrop.models.loading import LoadOptions, load_adapter
from omnidrop.models.qwen2_5_omni.adapter import QwenOmniAdapter
from omnidrop.models.qwen2_5_omni.tiny import hub_layout, tiny_thinker


@pytest.fixture(scope="session")
def thinker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_thinker(tmp_path_factory.mktemp("models") / "thinker")


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_layout(tmp_path_factory.mktemp("models") / "hub")


def load(folder: Path, **settings: str) -> QwenOmniAdapter:
    settings.setdefault("dtype", "float32")
    adapter = load_adapter(LoadOptions(model=str(folder), device="cpu", offline=True, **settings))
    assert isinstance(adapter, QwenOmniAdapter)
    return adapter


@pytest.fixture(scope="session")
def adapter(thinker_folder: Path) -> QwenOmniAdapter:
    return load(thinker_folder)
