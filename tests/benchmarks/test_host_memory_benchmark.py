"""The smallest form of `benchmarks/host_memory.py`: reports and promises against the kernel's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from omnidrop.testing import media

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import host_memory

        yield host_memory
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def made(benchmark: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of 0.2 GB and a clip."""
    folder = tmp_path_factory.mktemp("moderate")
    clip = media.mp4(folder / "clip.mp4", size=(128, 96), seconds=2)
    return benchmark.write_checkpoint(folder / "model", 3, 1024, 4000), clip


@pytest.mark.parametrize("precision", ["bf16", "4-bit"])
def test_report_and_promise_are_within_a_tenth_of_the_kernels_figure(
    benchmark: ModuleType, made: tuple[Path, Path], precision: str
) -> None:
    flags = benchmark.PRECISIONS[precision]
    run = benchmark.ask(*made, *flags, "--fit-memory", "3GB")
    assert run.reported == pytest.approx(run.mark, rel=0.1)
    assert benchmark.promise(run) == pytest.approx(run.mark, rel=0.1)
    assert run.mark > run.answer["trace"]["memory"]["weights"] > 80_000_000
