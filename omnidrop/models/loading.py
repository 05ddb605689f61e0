"""Loads a model by its name: picks device and dtype, checks that it fits, returns an `Adapter`.

The family of the checkpoint's `model_type` loads it (`omnidrop.models.family`), without the parts
it does not use. Weights are read from safetensors, and code in a checkpoint is never run.
"""

from __future__ import annotations

import time

import torch

from omnidrop.errors import MemoryShortError, ModelError, UsageError
from omnidrop.models.adapter import Adapter
from omnidrop.models.calibration import read_calibration
from omnidrop.models.checking import readable
from omnidrop.models.family import LoadRequest
from omnidrop.models.locations import (
    KnownModel,
    Location,
    find,
    known_models,
    shards,
    weights,
)
from omnidrop.models.mapped import NARROW
from omnidrop.models.memory import (
    MemoryEstimate,
    Weights,
    gigabytes,
    memory_free,
    out_of_memory,
    weights_of,
)
from omnidrop.models.pinned import TYPES
from omnidrop.models.unneeded import keep_out_torchvision
from omnidrop.models.world import read_world
from omnidrop.options import LoadOptions
from omnidrop.resident import let_go
from omnidrop.stages import Progress

__all__ = [
    "KnownModel",
    "LoadOptions",
    "Location",
    "MemoryEstimate",
    "estimate",
    "known_models",
    "load_adapter",
    "resolve",
]

DTYPES = {
    "auto": None,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "fp32": torch.float32,
}
ATTENTION = {
    "sdpa": "sdpa",
    "eager": "eager",
    "flash": "flash_attention_2",
    "flash_attention_2": "flash_attention_2",
}

LOWER = "Use --4bit or --8bit, a smaller model (--model 3b), or free some memory."


def resolve(options: LoadOptions, progress: Progress | None = None) -> Location:
    """Find the model of `options`; see `omnidrop.models.locations.find`."""
    return find(options.model, offline=options.offline, progress=progress)


def pick_device(name: str) -> torch.device:
    """Return the device to load on.

    Raises
    ------
    ModelError
        If this machine has no such device.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ModelError(
                f"There is no device {name}: PyTorch {torch.__version__} finds {count} CUDA GPUs.",
                hint="Use --device cpu, or install a driver and a PyTorch with CUDA.",
            )
        device = torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("This machine has no device mps.", hint="Use --device cpu.")
    return device


def pick_dtype(options: LoadOptions, location: Location, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in; see `LoadOptions.dtype` for the rule."""
    stored = location.family.stored_dtype(location.config)
    return dtype_for(options, stored, device, demo=location.demo)


def dtype_for(
    options: LoadOptions, stored: str | None, device: torch.device, *, demo: bool = False
) -> torch.dtype:
    """Return the dtype to compute in with weights that are stored as `stored`.

    Parameters
    ----------
    options : LoadOptions
    stored : str or None
        As a config names it; None for bfloat16, which published checkpoints are stored as.
    device : torch.device
    demo : bool
        Whether it is the demo model.
    """
    asked = DTYPES[options.dtype]
    if asked is not None:
        return asked
    own = DTYPES.get(str(stored)) or torch.bfloat16
    if device.type == "cpu":
        return torch.float32 if demo or not quick_bfloat16() else own
    if device.type == "cuda" and own == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        return torch.float16
    return own


def pick_stored(
    options: LoadOptions, location: Location, device: torch.device, dtype: torch.dtype
) -> torch.dtype | None:
    """Return the dtype in which weights stay mapped; see `LoadRequest.stored`.

    On a CPU without bfloat16 arithmetic weights of 16 bits stay mapped unless a dtype is asked for.
    What is quantised on a CPU is read from mapped weights as well.
    """
    if device.type != "cpu":
        return None
    listed = weights(location.folder, location.family.unused_weights)
    found = {TYPES[w.dtype] for w in listed if w.dtype in TYPES}
    kinds = {kind for kind in found if kind.is_floating_point}
    stored = next(iter(kinds)) if len(kinds) == 1 else None
    narrow = stored is not None and stored in NARROW and dtype == torch.float32
    if options.quantize is not None:
        return stored if narrow else dtype
    return stored if narrow and DTYPES[options.dtype] is None and not location.demo else None


def pick_positions(options: LoadOptions, location: Location) -> str | None:
    """Return the convention of positions; None if the family has only one.

    Raises
    ------
    UsageError
        If the family has no such convention.
    """
    family = location.family
    if options.positions is None:
        return next(iter(family.conventions), None)
    if options.positions not in family.conventions:
        known = " or ".join(family.conventions)
        raise UsageError(
            f"{family.name} has no positions {options.positions!r}.",
            hint=f"Choose {known}." if known else "It counts them in one way only.",
        )
    return options.positions


def quick_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively (AMX or AVX512-BF16) instead of converting."""
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, bool)() for test in tests)


def estimate(location: Location, options: LoadOptions, *, card: bool = False) -> MemoryEstimate:
    """Estimate the memory that loading takes, from the headers of the checkpoint's files.

    Parameters
    ----------
    location : Location
    options : LoadOptions
    card : bool
        Count what a GPU would hold, whatever the device is.

    Returns
    -------
    MemoryEstimate
        Weights only; KV cache and activations come on top.
    """
    device = pick_device(options.device)
    dtype = pick_dtype(options, location, device)
    stored = None if card else pick_stored(options, location, device, dtype)
    found = weights_of(location, device, dtype, options.quantize, stored)
    free = memory_free(device)
    return MemoryEstimate(
        weights=found,
        free=free,
        detail=f"weights {gigabytes(found.total_bytes)}, free {gigabytes(free)} on {device}",
    )


def load_adapter(options: LoadOptions, progress: Progress | None = None) -> Adapter:
    """Load a model.

    Parameters
    ----------
    options : LoadOptions
    progress : callable, optional
        Called with stage, bytes and bytes in all while files are downloaded.

    Raises
    ------
    ModelError
        If it cannot be found, is incomplete, or needs what this machine lacks.
    MemoryShortError
        If the weights do not fit, as estimated or while loading.
    """
    location = resolve(options, progress)
    began = time.perf_counter()
    device = pick_device(options.device)
    dtype = pick_dtype(options, location, device)
    _check_attention(ATTENTION[options.attention], device, dtype)
    positions = pick_positions(options, location)
    check(location)
    need = estimate(location, options)
    if not need.fits:
        raise MemoryShortError(f"{location.name} does not fit: {need.detail}.", hint=LOWER)
    adapter = _load(location, options, device, dtype, positions, need.weights)
    adapter.load_seconds = time.perf_counter() - began
    return adapter


def check(location: Location) -> None:
    """Check a model's config and the headers of its files; no weight is read.

    Raises
    ------
    ModelError
        If it could not be loaded; names the tensor or the field.
    """
    keep_out_torchvision()
    with readable(location.folder):
        location.family.check(location.folder, location.config)


def _check_attention(name: str, device: torch.device, dtype: torch.dtype) -> None:
    if name != "flash_attention_2":
        return
    from transformers.utils import is_flash_attn_2_available

    if device.type != "cuda" or not is_flash_attn_2_available():
        raise ModelError(
            "Flash attention is not installed, or there is no CUDA GPU.",
            hint="Use --attn sdpa, or: pip install flash-attn --no-build-isolation",
        )
    if dtype == torch.float32:
        raise ModelError("Flash attention computes in 16 bits only.", hint="Add --dtype bfloat16.")


def _load(
    location: Location,
    options: LoadOptions,
    device: torch.device,
    dtype: torch.dtype,
    positions: str | None,
    found: Weights,
) -> Adapter:
    request = LoadRequest(
        name=location.name,
        folder=location.folder,
        config=location.config,
        demo=location.demo,
        device=device,
        dtype=dtype,
        attention=ATTENTION[options.attention],
        quantize=options.quantize,
        parameters=found.parameters,
        positions=positions,
        stored=pick_stored(options, location, device, dtype),
    )
    with readable(location.folder), out_of_memory(LOWER):
        adapter = location.family.load(request)
        adapter.weights = found
        if found.mapped_bytes:  # what was read to convert other weights is not needed any more
            let_go(shards(location.folder, location.family.unused_weights))
        adapter.calibration = read_calibration(location.folder)
        adapter.recommended = location.recommended
        adapter.world = read_world(location.folder)
        return adapter
