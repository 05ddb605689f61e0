"""A film and its profile, measured once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.model import Model
from omnidrop.profiling.measure import profile
from omnidrop.profiling.result import Profile
from omnidrop.pruning.methods.uniform import Uniform
from omnidrop.testing import media

QUESTION = "What instrument plays first?"
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.mp4(tmp_path_factory.mktemp("film") / "film.mp4", seconds=5.0)


@pytest.fixture(scope="session")
def found(model: Model, film: Path) -> Profile:
    return profile(
        model,
        film,
        QUESTION,
        [Uniform(budget=0.5), Uniform(budget=1.0)],
        options=GenerateOptions(max_new_tokens=4),
        repeats=2,
        warmup=0,
    )
