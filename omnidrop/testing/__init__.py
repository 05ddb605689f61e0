"""Tools for tests: tiny checkpoints, synthetic clips, and property checks for methods.

For tests of this package, tests of methods and model families in other packages, and benchmarks
that need a model without a download:

    from omnidrop.testing import media, tiny_checkpoint

    folder = tiny_checkpoint(tmp_path)             # random weights; loads in milliseconds
    clip = media.write(tmp_path / "clip.mp4", seconds=3, sounds=[{"hertz": 440}])
    model = omnidrop.load(str(folder), device="cpu", dtype="float32")

Media need PyAV and soundfile, which are dependencies of the package.
"""

from __future__ import annotations

from pathlib import Path

from omnidrop.testing.methods import check_method

__all__ = ["check_method", "tiny_checkpoint"]


def tiny_checkpoint(folder: Path, model_type: str | None = None) -> Path:
    """Write a tiny checkpoint with random weights that loads and answers like a large one.

    Parameters
    ----------
    folder : Path
        Created if it does not exist; files of a checkpoint in it are replaced.
    model_type : str, optional
        The family's `model_type` in config.json; default the first built-in family.

    Returns
    -------
    Path
        The folder: config, weights (safetensors, about 1 MB) and tokenizer.

    Raises
    ------
    ValueError
        If no installed family has this model type.
    """
    from omnidrop.models.family import families, family_of

    family = families()[0] if model_type is None else family_of(model_type)
    if family is None:
        known = ", ".join(kind for known in families() for kind in known.model_types)
        raise ValueError(f"there is no family of {model_type}; known are {known}")
    return family.write_tiny(Path(folder))
