"""What answering would cost, from sizes alone: tokens, operations, memory and time.

Nothing is measured here. Times are operations over a speed that the caller states, a floor: no
kernel is faster than that, and reading the file comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omnidrop.shapes import Shapes

SCHEMA = "omnidrop.estimate/1"


@dataclass(frozen=True)
class Tokens:
    """Tokens of a prompt.

    Attributes
    ----------
    text, audio, video : int
    grid : tuple of int or None
        (t, h, w) in patches.
    counted : bool
        True if the text was counted by the model's own tokenizer.
    """

    text: int
    audio: int
    video: int
    grid: tuple[int, int, int] | None
    counted: bool

    @property
    def av(self) -> int:
        """Audio and video tokens."""
        return self.audio + self.video


@dataclass(frozen=True)
class RunEstimate:
    """One method at one budget.

    Attributes
    ----------
    label, method : str
    budget, realised : float
        Asked for, and what the schedule keeps.
    counts : tuple of int, length L
        Audio and video tokens entering each layer.
    flops_prefill : float
    speedup : float
        Of the LLM's prefill against keeping everything, by operations.
    kv_cache, peak : int
        Bytes: keys and values after prefill, and the most held at once with weights.
    seconds : float
        To the first token, towers included.
    """

    label: str
    method: str
    budget: float
    realised: float
    counts: tuple[int, ...]
    flops_prefill: float
    speedup: float
    kv_cache: int
    peak: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """The control and every run.

    Attributes
    ----------
    clip, question : str
    model : dict
        Name, sizes, dtype, device, parameters, bytes of weights.
    tokens : Tokens
    flops_vision, flops_audio : float
        Of the towers; the same for every run.
    speed : float
        FLOP/s that times are made with.
    speed_of : str
        Whose speed that is.
    control : RunEstimate
    runs : tuple of RunEstimate
    notices : tuple of str
    """

    clip: str
    question: str
    model: dict[str, Any]
    tokens: Tokens
    flops_vision: float
    flops_audio: float
    speed: float
    speed_of: str
    control: RunEstimate
    runs: tuple[RunEstimate, ...]
    notices: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[RunEstimate, ...]:
        """The control first, then the runs."""
        return (self.control, *self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, ready for JSON, `schema` first."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True)
class Sizes:
    """What the arithmetic needs of a model.

    Attributes
    ----------
    shapes : Shapes
    weights : int
        Bytes.
    width : int
        Bytes of a number in hidden states, keys and values.
    """

    shapes: Shapes
    weights: int
    width: int


def tower_costs(sizes: Sizes, tokens: Tokens) -> tuple[float, float]:
    """Return the operations of the vision and of the audio tower."""
    vision = sizes.shapes.vision.flops(tokens.grid) if tokens.grid else 0.0
    return vision, sizes.shapes.audio.flops(tokens.audio) if tokens.audio else 0.0


def run_estimate(
    label: str,
    method: str,
    budget: float,
    counts: Sequence[int],
    sizes: Sizes,
    tokens: Tokens,
    speed: float,
) -> RunEstimate:
    """Estimate one run.

    Parameters
    ----------
    label, method : str
    budget : float
    counts : sequence of int, length L
        Audio and video tokens entering each layer.
    sizes : Sizes
    tokens : Tokens
    speed : float
        FLOP/s.
    """
    text = sizes.shapes.text
    whole = text.prefill_flops(tokens.text, (tokens.av,) * len(counts))
    flops = text.prefill_flops(tokens.text, counts)
    lengths = [tokens.text + count for count in counts]
    return RunEstimate(
        label=label,
        method=method,
        budget=budget,
        realised=sum(counts) / (len(counts) * tokens.av) if tokens.av else 1.0,
        counts=tuple(counts),
        flops_prefill=flops,
        speedup=whole / flops,
        kv_cache=text.kv_bytes(lengths, sizes.width),
        peak=peak_bytes(sizes, tokens, lengths),
        seconds=(flops + sum(tower_costs(sizes, tokens))) / speed,
    )


def peak_bytes(sizes: Sizes, tokens: Tokens, lengths: Sequence[int]) -> int:
    """Return the most bytes held at once: weights, and the larger of tower and prefill.

    See `TextShape.peak_bytes` and `VisionShape.peak_bytes`. Buffers of kernels and what an
    allocator wastes come on top: up to a tenth, by `benchmarks/prefill_memory.py`.
    """
    text, vision, width = sizes.shapes.text, sizes.shapes.vision, sizes.width
    # Every plane of the video embeddings is held until it has been added.
    rows = tokens.av + tokens.text + (vision.planes - 1) * tokens.video
    embeddings = rows * text.hidden * width
    held = max(text.peak_bytes(lengths, width), vision.peak_bytes(tokens.grid, width))
    return sizes.weights + embeddings + round(held)
