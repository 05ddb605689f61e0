"""Whether dropping tokens is worth it: how much sooner the first token comes, by arithmetic.

The time to the first token is taken as

    START + READ · seconds of clip + FLOPs of the encoders / SPEED + prefill,

with a prefill of FLOPs / SPEED, but at least LAUNCH; dropping saves prefill, less SELECTION.
Nothing is timed, so the same question on the same kind of device is always answered in the same
way. With the constants for a CPU the saving is within four points of what was measured with the
demo model on the sample clips (`benchmarks/default_saving.py`); those for a GPU follow from one
H200 (`docs/results.md`), with a speed between a consumer's card and a data centre's.
"""

from __future__ import annotations

from collections.abc import Sequence

from omnidrop.engine.encode import Encoded
from omnidrop.shapes import Shapes
from omnidrop.tokens import Prompt

#: Nothing is dropped by default where that saves less than this share of the time.
LEAST = 0.1

#: Seconds to open a clip and to build the prompt.
START = 0.04
#: Seconds to read one second of a clip.
READ = 0.003
#: Seconds that choosing tokens takes.
SELECTION = 0.001
#: FLOP/s by type of device, and of any other.
SPEED, OTHER_SPEED = {"cpu": 1.2e11, "cuda": 3e14}, 1e13
#: Seconds below which no prefill gets, by type of device: the host needs them to launch its work.
LAUNCH = {"cuda": 0.04}


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
    launch = LAUNCH.get(device, 0.0)
    prefill, dropped = (max(flops / speed, launch) for flops in (whole, less))
    total = START + reading + _encoders(shapes, encoded) / speed + prefill
    return max(0.0, prefill - dropped - SELECTION) / total


def _encoders(shapes: Shapes, encoded: Encoded) -> float:
    """Return the FLOPs of the encoders; grids that repeat earlier ones cost nothing."""
    flops = 0.0
    if encoded.media.grid is not None:
        steps, height, width = encoded.media.grid
        flops += shapes.vision.flops((steps - encoded.repeated_grids, height, width))
    if encoded.media.audio_tokens:
        flops += shapes.audio.flops(encoded.media.audio_tokens)
    return flops
