"""Tools for tests: tiny checkpoints, made clips, and the property table that every method passes.

For tests of this package, of methods and model families written elsewhere, and for benchmarks that
need a model of any size without a download:

    from omnidrop.testing import media, tiny_checkpoint

    folder = tiny_checkpoint(tmp_path)             # random weights; loads in milliseconds
    clip = media.write(tmp_path / "clip.mp4", seconds=3, sounds=[{"hertz": 440}])
    model = omnidrop.load(str(folder), device="cpu", dtype="float32")

Media need PyAV and soundfile, which the package installs anyway.
"""

from __future__ import annotations

from pathlib import Path

from omnidrop.testing.methods import check_method

__all__ = ["check_method", "tiny_checkpoint"]


def tiny_checkpoint(folder: Path) -> Path:
    """Write a checkpoint of random weights that loads and answers like a large one.

    Parameters
    ----------
    folder : Path
        Made if it is not there; files of a checkpoint in it are replaced.

    Returns
    -------
    Path
        The folder: config, weights (safetensors, about 1 MB) and tokenizer of Qwen2.5-Omni's
        thinker with six layers of width 64.
    """
    from omnidrop.models.qwen2_5_omni.tiny import tiny_thinker

    return tiny_thinker(folder)
