"""Whether dropping tokens is worth it: how much sooner the first token comes, by arithmetic.

The time to the first token is taken as

    START + READ · seconds of clip + (FLOPs of encoders and prefill) / speed,

and dropping as saving the FLOPs it saves, less `SELECTION` seconds for choosing tokens. Nothing is
timed, so the same question on the same kind of device is always answered in the same way. The
constants were measured on two CPU cores with the demo model and the sample clips, and on one H200
with a 7B (`docs/results.md`).
"""

from __future__ import annotations

from collections.abc import Sequence

from omnidrop.engine.encode import Encoded
from omnidrop.shapes import Shapes
from omnidrop.tokens import Prompt

#: Nothing is dropped by default where that saves less than this share of the time.
LEAST = 0.1

#: Seconds to open a clip and to build the prompt.
START = 0.03
#: Seconds to read one second of a clip.
READ = 0.005
#: Seconds that choosing tokens takes.
SELECTION = 0.01
#: FLOP/s by type of device: of two CPU cores; of a GPU between a consumer's and a data centre's.
SPEED = {"cpu": 1e11, "cuda": 3e14}
#: Of any other device.
OTHER_SPEED = 1e13


def saving(
    shapes: Shapes,
    device: str,
    prompt: Prompt,
    encoded: Encoded,
    counts: Sequence[int],
    *,
    read: bool = True,
) -> float:
    """Return the share of the time to the first token that dropping saves, 0 to 1.

    Parameters
    ----------
    shapes : Shapes
    device : str
        Type of device: "cpu", "cuda" or another.
    prompt : Prompt
    encoded : Encoded
    counts : sequence of int, length L
        Audio and video tokens that enter each layer.
    read : bool
        Whether a file was read; False for ready features.
    """
    speed = SPEED.get(device, OTHER_SPEED)
    av = int(prompt.tokens.av.sum())
    text = len(prompt) - av
    whole = shapes.text.prefill_flops(text, (av,) * shapes.text.layers, as_run=True)
    less = shapes.text.prefill_flops(text, counts, as_run=True)
    used = encoded.used
    reading = READ * max(used.video_seconds, used.audio_seconds) if read else 0.0
    total = START + reading + (_encoders(shapes, encoded) + whole) / speed
    return max(0.0, (whole - less) / speed - SELECTION) / total


def _encoders(shapes: Shapes, encoded: Encoded) -> float:
    """Return the FLOPs of the encoders; grids that repeat earlier ones cost nothing."""
    flops = 0.0
    if encoded.media.grid is not None:
        steps, height, width = encoded.media.grid
        flops += shapes.vision.flops((steps - encoded.repeated_grids, height, width))
    if encoded.media.audio_tokens:
        flops += shapes.audio.flops(encoded.media.audio_tokens)
    return flops
