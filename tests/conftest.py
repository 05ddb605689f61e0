"""Settings of all tests: deterministic hypothesis examples, no network, few threads."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser
import pytest
import torch
from hypothesis import HealthCheck, settings

from omnidrop.models.family import registered
from omnidrop.testing import made_up_family, media

if TYPE_CHECKING:
    from browser import Browser

    from omnidrop.engine.encode import Features
    from omnidrop.engine.model import Model

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMNIDROP_CONFIG"] = os.devnull  # values of one's own are no part of a test

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Under nohup or in the background SIGINT is ignored, and child processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:
    # OpenMP threads spin while they wait, so parallel test processes use one thread each.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is no CUDA GPU; pytest counts it."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA GPU")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _made_up() -> Iterator[None]:
    """Know the made-up family, as if its package were installed."""
    with registered(made_up_family.FAMILY):
        yield


@pytest.fixture(scope="session", autouse=True)
def _media_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Encode each media file once; where a test asks for the same again, it gets a copy."""
    folder, made = tmp_path_factory.mktemp("media"), {}
    write, picture = media.write, media.picture
    drawn = functools.lru_cache(maxsize=300)(picture)

    def copied(path: Path, **settings: Any) -> Path:
        path = Path(path)
        key = path.suffix, pickle.dumps(sorted(settings.items()))
        if key in made:
            return Path(shutil.copyfile(made[key], path))
        write(path, **settings)
        made[key] = shutil.copyfile(path, folder / str(len(made)))
        return path

    def kept(number: int, width: int, height: int) -> Any:
        make = drawn if width * height <= 160 * 120 else picture
        return make(number, width, height)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media, "write", copied)
        patch.setattr(media, "picture", kept)
        yield


@pytest.fixture(scope="session")
def tab() -> Iterator[Browser]:
    """A tab of Chromium, where there is one."""
    if browser.chromium() is None:
        pytest.skip("needs Chromium")
    with browser.browser() as found:
        yield found


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    from omnidrop.models.qwen2_5_omni.tiny import tiny_thinker

    return tiny_thinker(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    """The tiny checkpoint, loaded on the CPU in float32."""
    from tests.tiny import load_tiny

    return load_tiny(folder)


@pytest.fixture(scope="session")
def features(model: Model) -> Features:
    from tests.tiny import make_features

    return make_features(model=model)
