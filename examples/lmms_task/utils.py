"""What the task `samples_of_omnidrop` gives lmms-eval: a clip, a question, and whether it is right.

A task of your own has the same three functions: `visual` returns the path of a local clip.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CLIPS = Path("samples")


def visual(document: dict[str, Any]) -> list[str]:
    """Return the clip of a question; OmniDrop reads picture and sound from the file itself."""
    return [str(CLIPS / document["video"])]


def text(document: dict[str, Any], settings: dict[str, Any] | None = None) -> str:
    """Return the question as it is asked."""
    return str(document["question"])


def results(document: dict[str, Any], replies: list[str]) -> dict[str, float]:
    """Return 1 for a reply that is the answer, whatever the case, else 0."""
    said = replies[0].strip().strip(".").casefold()
    return {"right": float(said == document["answer"].casefold())}
