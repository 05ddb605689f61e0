"""Keeps a torchvision that cannot be imported out of transformers; nothing here needs it."""

from __future__ import annotations

import importlib
import sys

#: Functions of transformers that tell its modules whether to import torchvision.
_TOLD_BY = ("is_torchvision_available", "is_torchvision_v2_available")


def keep_out_torchvision() -> str | None:
    """Make transformers do without torchvision if importing that fails.

    Transformers imports torchvision along with its models wherever it is installed. One built for
    another torch fails on import, and every model with it. To be called before transformers' models
    are imported; what transformers has once been told lasts as long as the process.

    Returns
    -------
    str or None
        Why torchvision cannot be imported; None if it can, or is not installed.
    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name == "torchvision":
            return None
        reason = f"{type(error).__name__}: {error}"
    except Exception as error:  # compiled code that does not fit raises any type
        reason = f"{type(error).__name__}: {error}"
    else:
        return None
    from transformers.utils import import_utils

    # For importlib, a module that is None does not exist.
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    try:
        for name in _TOLD_BY:
            told = getattr(import_utils, name, None)
            if told is not None:
                told.cache_clear()
                told()  # keeps the answer
    finally:
        del sys.modules["torchvision"]
    return " ".join(reason.split())
