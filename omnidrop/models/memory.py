"""Memory of weights, free memory, and errors about memory that ran out.

Weights are counted from the headers of a checkpoint's files, before anything is loaded. On a CPU,
weights that are used as they are stored stay mapped: they are pages of the file, read when they are
first used, and the system can take them back and read them again. All others are the process's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from omnidrop.errors import MemoryShortError
from omnidrop.host_memory import host_memory_free
from omnidrop.models.experts import is_expert, is_single_expert
from omnidrop.models.locations import Location, Weight, weights
from omnidrop.models.mapped import MOST_VALUES
from omnidrop.models.pinned import TYPES
from omnidrop.models.quantising import QUANTISED, is_table, packed_bytes

#: Share of the free memory that must remain after the weights, for everything else.
HEADROOM = 0.05

#: Phrases in the message of a plain RuntimeError that a library raises when memory runs out.
WORDINGS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cublas_status_alloc_failed",
    "cuda_error_out_of_memory",
)


@dataclass(frozen=True)
class Weights:
    """Bytes that the weights of a model take once it is loaded, each counted once.

    Attributes
    ----------
    mapped_bytes : int
        Pages of the checkpoint's files in the host's memory, which the system can take back.
    anonymous_bytes : int
        Held by the process in the host's memory.
    device_bytes : int
        In a device's own memory.
    parameters : int
        Number of parameters.
    buffer_bytes : int
        Of the buffer in which a matrix is widened for its product. It is taken at the first
        question, and is no part of the weights.
    """

    mapped_bytes: int = 0
    anonymous_bytes: int = 0
    device_bytes: int = 0
    parameters: int = 0
    buffer_bytes: int = 0

    @property
    def host_bytes(self) -> int:
        """Bytes in the host's memory."""
        return self.mapped_bytes + self.anonymous_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes wherever they are."""
        return self.host_bytes + self.device_bytes


def weights_of(
    location: Location,
    device: torch.device,
    dtype: torch.dtype,
    quantize: str | None,
    stored: torch.dtype | None = None,
) -> Weights:
    """Count the weights of a checkpoint as loading will hold them; no weight is read.

    Parameters
    ----------
    location : Location
    device : torch.device
    dtype : torch.dtype
        As `loading.pick_device` and `loading.pick_dtype` choose them.
    quantize : {None, "4bit", "8bit"}
    stored : torch.dtype, optional
        In which weights stay mapped on a CPU, as `loading.pick_stored` chooses it.

    Raises
    ------
    ModelError
        If a file is missing, damaged or truncated.
    """
    family = location.family
    held = stored or dtype
    mapped, own, count, widest = 0, 0.0, 0, 0
    for weight in weights(location.folder, family.unused_weights):
        count += weight.numel
        if is_widened(weight):
            widest = max(widest, min(weight.numel, MOST_VALUES))
        few: float | None = None
        if quantize is not None and stored is not None:
            few = packed_bytes(weight, quantize, family.quantised(weight.name))
        elif quantize is not None and family.quantised(weight.name):
            few = weight.numel * QUANTISED[quantize]
        if few is not None:
            own += few
        elif held != dtype and len(weight.shape) != 2 and not is_expert(weight.name):
            own += weight.numel * dtype.itemsize  # only matrices are widened when they are used
        elif TYPES.get(weight.dtype) != held or is_single_expert(weight.name):
            own += weight.numel * held.itemsize  # converted, or copied into the layer's experts
        else:
            mapped += weight.numel * held.itemsize
    if device.type == "cuda":
        return Weights(device_bytes=round(mapped + own), parameters=count)
    if device.type != "cpu":  # one memory for both; weights are copied to where the GPU wants them
        return Weights(anonymous_bytes=round(mapped + own), parameters=count)
    widens = stored is not None and (stored != dtype or quantize is not None)
    buffer = widest * dtype.itemsize if widens else 0
    return Weights(mapped, round(own), parameters=count, buffer_bytes=buffer)


def is_widened(weight: Weight) -> bool:
    """Return whether a weight is a matrix that a product widens as a whole, if it is widened.

    Of the table of embeddings single rows are widened, of `lm_head` small blocks.
    """
    few = is_table(weight.name) or is_expert(weight.name) or is_single_expert(weight.name)
    return len(weight.shape) == 2 and not few


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that loading a model takes.

    Attributes
    ----------
    weights : Weights
        Of the parts that are loaded.
    free : int
        Bytes that are free where they go.
    detail : str
        One line for the user.
    """

    weights: Weights
    free: int
    detail: str

    @property
    def fits(self) -> bool:
        """Whether the weights fit with some memory to spare."""
        return self.weights.total_bytes <= self.free * (1 - HEADROOM)


def gigabytes(count: int | float) -> str:
    """Show bytes as gigabytes (10⁹)."""
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"


def has_own_memory(device: torch.device) -> bool:
    """Whether a device has memory apart from the host's."""
    return device.type == "cuda"


def memory_free(device: torch.device, loaded: Weights | None = None) -> int:
    """Return the bytes that are free where a model on `device` is: in a GPU's own memory, or here.

    What PyTorch has reserved on a GPU and does not use is free as well.

    Parameters
    ----------
    device : torch.device
    loaded : Weights, optional
        Of a model that is loaded. The system counts its mapped weights as free, because it can take
        them back, but they are read again and again while the model answers.
    """
    if not has_own_memory(device):
        return host_memory_free(0 if loaded is None else loaded.mapped_bytes)
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + unused


@contextmanager
def out_of_memory(hint: str) -> Iterator[None]:
    """Turn every kind of out-of-memory error into `MemoryShortError`.

    Parameters
    ----------
    hint : str
        The remedy.

    Raises
    ------
    MemoryShortError
        In place of `MemoryError`, `torch.OutOfMemoryError`, and RuntimeErrors about memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        where = _where(error)
        if where is None:
            raise
        raise MemoryShortError(f"The {where} ran out of memory.", hint=hint) from error


def _where(error: BaseException) -> str | None:
    """Return which memory ran out ("GPU" or "machine"), or None if the error has another cause."""
    said = str(error).lower()
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(
        wording in said for wording in WORDINGS
    ):
        return None
    graphics = isinstance(error, torch.OutOfMemoryError) or "cuda" in said or "mps" in said
    return "GPU" if graphics else "machine"
