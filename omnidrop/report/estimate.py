"""What answering would cost, from sizes alone: tokens, operations, memory and time.

Nothing is measured here. Times are operations over a speed that the caller states, a floor: no
kernel is faster than that, and reading the file comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omnidrop.report.cost import (
    AudioSizes,
    DecoderShape,
    VisionSizes,
    audio_flops,
    kv_bytes,
    prefill_flops,
    vision_flops,
)

SCHEMA = "omnidrop.estimate/1"

#: Patches that pass the vision tower together, and their bytes before the tower (float32).
TOWER_BATCH, PATCH_BYTES = 8192, 4 * 3 * 2 * 14 * 14
#: The first of the two on a GPU, at most.
TOWER_BATCH_GPU = 16384
#: Rows that pass a norm or an MLP of the decoder together.
ROWS = 2048


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
    text : DecoderShape
    vision : VisionSizes
    audio : AudioSizes
    weights : int
        Bytes.
    width : int
        Bytes of a number in hidden states, keys and values.
    gpu : bool
        Whether it runs on a GPU, where more goes together.
    """

    text: DecoderShape
    vision: VisionSizes
    audio: AudioSizes
    weights: int
    width: int
    gpu: bool = False


def tower_costs(sizes: Sizes, tokens: Tokens) -> tuple[float, float]:
    """Return the operations of the vision and of the audio tower."""
    vision = vision_flops(sizes.vision, tokens.grid) if tokens.grid else 0.0
    return vision, audio_flops(sizes.audio, tokens.audio) if tokens.audio else 0.0


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
    whole = prefill_flops(sizes.text, tokens.text, (tokens.av,) * len(counts))
    flops = prefill_flops(sizes.text, tokens.text, counts)
    lengths = [tokens.text + count for count in counts]
    return RunEstimate(
        label=label,
        method=method,
        budget=budget,
        realised=sum(counts) / (len(counts) * tokens.av) if tokens.av else 1.0,
        counts=tuple(counts),
        flops_prefill=flops,
        speedup=whole / flops,
        kv_cache=kv_bytes(sizes.text, lengths, sizes.width),
        peak=peak_bytes(sizes, tokens, lengths),
        seconds=(flops + sum(tower_costs(sizes, tokens))) / speed,
    )


def peak_bytes(sizes: Sizes, tokens: Tokens, lengths: Sequence[int]) -> int:
    """Return the most bytes held at once: weights, and the larger of tower and prefill.

    In the prefill, layer l holds the embeddings of the clip, the keys and values so far, the rows
    that entered it, and beside them the larger of what its two halves need. Attention: another
    hidden row and two and a half of the queries' while positions turn them, or three of the
    queries', or two hidden rows. The MLP: another hidden row, and of `ROWS` rows at a time two of
    the MLP's width, one hidden and two in float32. In the vision tower a batch of patches holds six
    rows and three of the MLP's. Buffers of kernels and what an allocator wastes come on top:
    up to a tenth, by `benchmarks/prefill_memory.py`.
    """
    text, vision, width = sizes.text, sizes.vision, sizes.width
    hidden, queries = text.hidden, text.heads * text.head_dim
    embeddings = (tokens.av + tokens.text) * hidden * width
    attention = max(2 * hidden + 2.5 * queries, hidden + 3 * queries, 3 * hidden) * width
    angles = 2 * text.head_dim * width
    slab = (2 * text.intermediate + hidden) * width + 2 * hidden * 4
    prefill = max(
        kv_bytes(text, lengths[: layer + 1], width)
        + length * angles
        + max(length * attention, length * 2 * hidden * width + min(length, ROWS) * slab)
        for layer, length in enumerate(lengths)
    )
    t, h, w = tokens.grid or (0, 0, 0)
    batch = TOWER_BATCH_GPU if sizes.gpu else TOWER_BATCH
    patches = min(t * h * w, max(batch, h * w))
    tower = patches * ((6 * vision.hidden + 3 * vision.intermediate) * width + PATCH_BYTES)
    return sizes.weights + embeddings + round(max(prefill, tower))
