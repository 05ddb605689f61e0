"""What the tests of batches share: short clips of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnidrop.testing import media


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two clips of half a second, a.mp4 and b.mp4, and a damaged one, bad.mp4."""
    folder = tmp_path_factory.mktemp("clips")
    for name in "ab":
        media.mp4(folder / f"{name}.mp4", seconds=0.5)
    (folder / "bad.mp4").write_bytes(b"no clip at all")
    return folder
