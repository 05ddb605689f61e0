"""Names of the timed stages, shared by engine, reports and command line; who hears of them.

JSON documents contain these names, so their text never changes. The time of a stage is an
`omnidrop.report.trace.Stage`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

#: Called with (stage, done, total or None if unknown), for a progress bar.
Progress = Callable[[str, float, float | None], None]


class StageName(StrEnum):
    """One stage of answering a question, in the order of work."""

    LOAD = "load"  #: loading the model, once before all questions: not part of a TTFT
    OPEN = "open"
    SOUND = "sound"  #: decoding the audio stream
    LOG_MEL = "log-mel"  #: part of `SOUND`
    FRAMES = "frames"  #: seeking and decoding
    RESIZE = "resize"  #: part of `FRAMES`
    PATCHES = "patches"
    WAITING_FOR_FRAMES = "waiting for frames"  #: the vision encoder waits for decoding
    VISION_TOWER = "vision tower"
    WAITING_FOR_SOUND = "waiting for sound"  #: the audio encoder waits for decoding
    AUDIO_TOWER = "audio tower"
    PROMPT = "prompt"
    FIT = "fit"  #: choosing the budget that fits given limits
    ENTRY = "entry"  #: choosing the tokens that enter layer 0
    PREFILL = "prefill"
    SELECTION = "selection"  #: part of `PREFILL`: scoring and selecting tokens between layers
    CHOICES = "choices"  #: scoring given answers
    ANSWER = "answer"
    DECODE = "decode"  #: part of `ANSWER`: all tokens after the first
    DETOKENISE = "detokenise"  #: part of `ANSWER`


def prefix_stage(through: int, layers: int) -> str:
    """Name the part of a prefill that was reused from an earlier question.

    Parameters
    ----------
    through : int
        Number of reused layers, from the first.
    layers : int
        Layers of the decoder.
    """
    return f"prefix through layer {through} of {layers}"
