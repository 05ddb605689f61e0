"""Reading the banks' files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RATE = 16_000
FOLDER = Path(__file__).parent / "bank"


def read_flac(path: Path) -> np.ndarray:
    """Return the samples of a mono 16-bit FLAC, int16."""
    import av

    with av.open(str(path)) as box:
        return np.concatenate([f.to_ndarray().reshape(-1) for f in box.decode(audio=0)])
