"""What the user should know about an answer, as sentences for its Trace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omnidrop.engine.asked_about import what_is_missing
from omnidrop.errors import OutsideError
from omnidrop.models.adapter import Adapter
from omnidrop.notices import DEMO
from omnidrop.prompt import long_position_notice
from omnidrop.pruning.method import Plan
from omnidrop.report.trace import Used
from omnidrop.tokens import Prompt

if TYPE_CHECKING:  # precomputed features need no media library
    from omnidrop.clip.clip import Clip

DEMO_NOTICE = (
    f"{DEMO}: it knows only instruments, shapes and colours. "
    "For real clips: omnidrop ask --model 3b CLIP QUESTION"
)


def of_answer(
    adapter: Adapter, clip: Clip | None, prompt: Prompt, plan: Plan, outside: OutsideError | None
) -> tuple[str, ...]:
    """Return the notices about model, clip and prompt, in the order they are shown.

    Parameters
    ----------
    adapter : Adapter
    clip : Clip or None
        None for precomputed features.
    prompt : Prompt
    plan : Plan
        The method's.
    outside : OutsideError or None
        What of the question the model does not know, if it was asked anyway.
    """
    found = [DEMO_NOTICE] if adapter.info.demo else []
    if outside is not None:
        found.append(f"{outside.what} The answer is a guess.")
    elif adapter.world is not None and (long := adapter.world.long_notice(seconds_of(clip))):
        found.append(long)
    found += clip.notices if clip is not None else []
    notes = (long_position_notice(prompt, adapter.template), plan.settings.get("note"))
    return (*found, *(str(note) for note in notes if note))


def seconds_of(clip: Clip | None) -> float | None:
    """Return the length of the part of a clip that is asked about, if it is known."""
    seconds = clip.duration if clip is not None else math.inf
    return seconds if math.isfinite(seconds) else None


def missing(question: str, clip: Clip | None, used: Used) -> tuple[str, ...]:
    """Return notices about sound or picture that is asked about and is not there.

    Parameters
    ----------
    question : str
    clip : Clip or None
    used : Used
        What of the clip the model was given.
    """
    sound = picture = None
    options = clip.options if clip is not None else None
    if not used.audio_seconds:
        left_out = options is not None and not options.audio
        sound = "it is left out (--no-audio)" if left_out else "there is none"
    elif clip is not None and clip.silent:
        sound = "the clip is silent all through"
    if not used.frames:
        left_out = options is not None and not options.video
        picture = "it is left out (--no-video)" if left_out else "there is none"
    return tuple(what_is_missing(question, sound, picture))


def doubt(outside: OutsideError | None, missing: Sequence[str]) -> str:
    """Return why no probability holds for a question: none was measured on questions like it."""
    if outside is not None:
        return "the model does not know what is asked"
    return missing[0][0].lower() + missing[0][1:].rstrip(".") if missing else ""
