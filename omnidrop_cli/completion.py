"""What a shell offers where a value is typed: names of models, methods and presets, clips.

A shell asks at every press of the key, so nothing here imports torch or reads a model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Set by the shell that asks; ends in its name.
ASKING = "_OMNIDROP_COMPLETE"


def models(incomplete: str) -> list[tuple[str, str]]:
    """Return the short names of models, then the hub names of those that are on this machine."""
    from omnidrop.models.family import aliases

    found = {"demo": "small model that comes with OmniDrop"} | aliases()
    found |= dict.fromkeys(_cached(), "on this machine")
    return [(name, about) for name, about in found.items() if name.startswith(incomplete)]


def _cached() -> list[str]:
    """Return the hub names of the models of a known family in the hub's cache."""
    import json

    from omnidrop.models.family import family_of

    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    found = []
    for path in sorted(hub.glob("models--*--*/snapshots/*/config.json")):
        with suppress(OSError, ValueError, AttributeError):
            if family_of(json.loads(path.read_bytes()).get("model_type")) is not None:
                found.append(path.parts[-4].removeprefix("models--").replace("--", "/", 1))
    return found


def methods(incomplete: str) -> list[str]:
    """Return names of methods; the last of a list or of two joined is completed."""
    from omnidrop.pruning.names import WRAPPERS, method_names

    at = max(incomplete.rfind(mark) for mark in ",+@") + 1
    before = incomplete[:at]
    names = method_names() + (list(WRAPPERS) if before.endswith("@") else [])
    return starting(incomplete, (before + name for name in names))


def presets(incomplete: str) -> list[str]:
    """Return names of presets; where none fits, the shell offers files."""
    from omnidrop.pruning.names import PRESETS

    return starting(incomplete, PRESETS)


def devices(incomplete: str) -> list[str]:
    """Return devices: those of NVIDIA by their files, for torch would take seconds to ask."""
    files = Path("/dev").glob("nvidia[0-9]*")
    numbers = sorted(int(path.name.removeprefix("nvidia")) for path in files)
    several = [f"cuda:{number}" for number in numbers if len(numbers) > 1]
    return starting(incomplete, ["auto", "cpu", "cuda", *several, "mps"])


def one_of(*words: str) -> Callable[[str], list[str]]:
    """Return what completes one of these words."""

    def complete(incomplete: str) -> list[str]:
        return starting(incomplete, words)

    return complete


#: What completes the value of an option, by its longest name.
VALUES: dict[str, Callable[[str], Any]] = {
    "--model": models,
    "--method": methods,
    "--preset": presets,
    "--device": devices,
    "--dtype": one_of("auto", "float32", "bfloat16", "float16"),
    "--attn": one_of("sdpa", "flash"),
    "--score": one_of("text", "logits"),
    "--style": one_of("letters", "plain"),
}


def clips(incomplete: str) -> list[str]:
    """Return clips and folders; none where no name fits, so that the shell offers other files.

    A folder that is the only one is entered: shells put a space behind a name that is the only one.
    """
    from omnidrop_cli.options.clips import is_clip_name

    head, tail = os.path.split(incomplete)
    found = []
    with suppress(OSError):
        for entry in sorted(os.scandir(os.path.expanduser(head) or "."), key=lambda e: e.name):
            if not entry.name.startswith(tail) or (entry.name[0] == "." and not tail):
                continue
            if entry.is_dir():
                found.append(os.path.join(head, entry.name, ""))
            elif is_clip_name(entry.name):
                found.append(os.path.join(head, entry.name))
    if len(found) == 1 and found[0].endswith(os.sep) and found[0] != incomplete:
        return clips(found[0]) or found
    return [_for_shell(name, incomplete) for name in found]


def _for_shell(name: str, incomplete: str) -> str:
    """Return a name as the shell takes it: bash puts it in as it is, the others quote it."""
    words = os.environ.get("COMP_WORDS", "")
    if not os.environ.get(ASKING, "").endswith("bash") or re.search(
        rf"[\"']{re.escape(incomplete)}$", words
    ):
        return name
    return re.sub(r"([^\w@%+=:,./~-])", r"\\\1", name)


def starting(incomplete: str, words: Iterable[str]) -> list[str]:
    """Return the words that begin like what is typed."""
    return [word for word in words if word.startswith(incomplete)]


__all__ = ["VALUES", "clips", "models", "one_of", "starting"]
