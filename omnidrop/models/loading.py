"""From a model's name to an `Adapter`: device, dtype, quantisation, and whether it will fit.

Only the thinker is loaded; the parts that speak are left on the disk. Weights are read from
safetensors, and code in a checkpoint is never run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omnidrop.errors import MemoryShortError, ModelError, OmniDropError, UsageError
from omnidrop.models.adapter import Adapter
from omnidrop.models.locations import (
    KnownModel,
    Location,
    find,
    known_models,
    weights,
)
from omnidrop.models.memory import (
    MemoryEstimate,
    device_memory_free,
    gigabytes,
    host_memory_free,
    out_of_memory,
)
from omnidrop.models.pinned import PinnedReader, reads_pinned
from omnidrop.models.quantising import QUANTISED, check_quantised, quantisation

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

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_LINEAR = re.compile(r"\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj\.weight$")
_TOWERS = re.compile(r"(^|\.)(audio_tower|visual)\.")


@dataclass(frozen=True)
class LoadOptions:
    """Which model, where, and how precise.

    Parameters
    ----------
    model : str or None
        A folder, a hub name, an alias ("3b", "7b", "demo"); None takes a Qwen2.5-Omni from the
        hub's cache, or else the demo model.
    device : str
        "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
    dtype : str
        "auto", "bfloat16", "float16" or "float32". Auto: the checkpoint's own on a GPU; on a CPU
        float32 for the demo model, for a float32 checkpoint and where the processor has no
        arithmetic for bfloat16, else bfloat16.
    quantize : {None, "4bit", "8bit"}
        Quantise the language model's linear layers (bitsandbytes); the towers keep `dtype`.
    attention : {"sdpa", "flash", "eager"}
        Flash attention must be installed; eager is slow and there for comparisons.
    offline : bool
        Never use the network.

    Raises
    ------
    UsageError
        If a value cannot be meant.
    """

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    attention: str = "sdpa"
    offline: bool = False

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(
                f"There is no device {self.device!r}.", hint="Use auto, cpu, cuda, cuda:0 or mps."
            )
        if self.dtype not in DTYPES:
            raise UsageError(
                f"There is no dtype {self.dtype!r}.", hint="Use auto, bfloat16, float16 or float32."
            )
        if self.quantize not in (None, *QUANTISED):
            raise UsageError(
                f"There is no quantisation {self.quantize!r}.", hint="Use 4bit or 8bit, or neither."
            )
        if self.attention not in ATTENTION:
            raise UsageError(
                f"There is no attention {self.attention!r}.", hint="Use sdpa, flash or eager."
            )


def resolve(options: LoadOptions) -> Location:
    """Find the model that `options` ask for; see `omnidrop.models.locations.find`."""
    return find(options.model, offline=options.offline)


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
                f"The device {name} was asked for, and PyTorch {torch.__version__} sees "
                f"{count} CUDA GPUs.",
                hint="Use --device cpu, or install a driver and a PyTorch with CUDA.",
            )
        device = torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError(
            "The device mps was asked for, and this machine has none.", hint="Use --device cpu."
        )
    return device


def pick_dtype(options: LoadOptions, location: Location, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in; see `LoadOptions.dtype` for the rule."""
    asked = DTYPES[options.dtype]
    if asked is not None:
        return asked
    config = location.config
    name = location.thinker_config.get("torch_dtype") or location.thinker_config.get("dtype")
    name = name or config.get("torch_dtype") or config.get("dtype")
    own = DTYPES.get(str(name)) or torch.bfloat16
    if device.type == "cpu":
        return torch.float32 if location.demo or not quick_bfloat16() else own
    if device.type == "cuda" and own == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        return torch.float16
    return own


def quick_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself (AMX or AVX512-BF16) instead of converting."""
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, bool)() for test in tests)


def estimate(location: Location, options: LoadOptions) -> MemoryEstimate:
    """Count what loading will take, from the headers of the checkpoint's files.

    Parameters
    ----------
    location : Location
    options : LoadOptions

    Returns
    -------
    MemoryEstimate
        Weights only; tokens and activations come on top.
    """
    device = pick_device(options.device)
    size = torch.empty(0, dtype=pick_dtype(options, location, device)).element_size()
    listed = weights(location.folder)
    linears = sum(w.numel for w in listed if _LINEAR.search(w.name) and not _TOWERS.search(w.name))
    total = sum(w.numel for w in listed)
    need = total * size
    if options.quantize is not None:
        need = round((total - linears) * size + linears * QUANTISED[options.quantize])
    # Weights go to the GPU tensor by tensor; on a Mac both are the same memory.
    apart = device.type == "cuda"
    free = device_memory_free(device) if apart else host_memory_free()
    room = "an unknown amount" if free is None else gigabytes(free)
    return MemoryEstimate(
        host=0 if apart else need,
        device=need if apart else 0,
        host_free=host_memory_free(),
        device_free=device_memory_free(device),
        parameters=total,
        detail=f"weights {gigabytes(need)}, free {room} on {device}",
    )


def load_adapter(options: LoadOptions) -> Adapter:
    """Load a model.

    Raises
    ------
    ModelError
        If it cannot be found, is incomplete, or needs what this machine lacks.
    MemoryShortError
        If its weights would not fit, or did not.
    """
    location = resolve(options)
    device = pick_device(options.device)
    dtype = pick_dtype(options, location, device)
    _check_attention(ATTENTION[options.attention], device, dtype)
    need = estimate(location, options)
    if not need.fits:
        raise MemoryShortError(f"{location.name} does not fit: {need.detail}.", hint=LOWER)
    return _load(location, options, device, dtype, need.parameters)


def _check_attention(name: str, device: torch.device, dtype: torch.dtype) -> None:
    if name != "flash_attention_2":
        return
    from transformers.utils import is_flash_attn_2_available

    if device.type != "cuda" or not is_flash_attn_2_available():
        raise ModelError(
            "Flash attention was asked for, and it is not installed or there is no CUDA GPU.",
            hint="Use --attn sdpa, or: pip install flash-attn --no-build-isolation",
        )
    if dtype == torch.float32:
        raise ModelError("Flash attention computes in 16 bits only.", hint="Add --dtype bfloat16.")


def _load(
    location: Location,
    options: LoadOptions,
    device: torch.device,
    dtype: torch.dtype,
    parameters: int,
) -> Adapter:
    from omnidrop.models.qwen2_5_omni.adapter import QwenOmniAdapter

    folder = location.folder
    try:
        with _quiet(), out_of_memory(LOWER):
            thinker, report, tokenizer = _from_disk(location, options, device, dtype)
    except OmniDropError:
        raise
    except Exception as error:  # a library's, about files that are not what they seem
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"transformers cannot load this model ({type(error).__name__}: {reason}).",
            path=folder,
            hint="Check its files, or name another model with --model.",
        ) from error
    _check_report(report, folder)
    if options.quantize is not None:
        check_quantised(thinker, folder)
    return QwenOmniAdapter(
        thinker,
        tokenizer,
        name=location.name,
        folder=folder,
        demo=location.demo,
        quantization=options.quantize,
        parameters=parameters,
    )


def _from_disk(
    location: Location, options: LoadOptions, device: torch.device, dtype: torch.dtype
) -> tuple[Any, Any, Any]:
    """Return the thinker, the report of its loading, and the tokenizer."""
    from transformers import AutoTokenizer, Qwen2_5OmniThinkerConfig

    from omnidrop.models.qwen2_5_omni.adapter import THINKER

    folder = location.folder
    settings: dict[str, Any] = {}
    config = Qwen2_5OmniThinkerConfig.from_dict(dict(location.thinker_config))
    if options.quantize is not None:
        settings["quantization_config"] = quantisation(options.quantize, THINKER, config, dtype)
    if options.quantize is not None or device.type != "cpu":
        settings["device_map"] = {"": str(device)}
    settings |= {
        "config": config,
        "dtype": dtype,
        "attn_implementation": ATTENTION[options.attention],
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
    }
    loaded: Any = _read_pinned(folder, device, settings) if reads_pinned(device) else None
    if loaded is None:
        loaded = THINKER.from_pretrained(folder, **settings)
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    return *loaded, tokenizer


def _read_pinned(folder: Path, device: torch.device, settings: dict[str, Any]) -> Any:
    """Load with weights read by `pinned`; None where it cannot be."""
    from transformers import GenerationConfig

    from omnidrop.models.qwen2_5_omni.adapter import THINKER

    try:
        reader = PinnedReader(device)
    except RuntimeError:  # the system pins no more memory
        return None
    with reader:
        unread = reader.lazy(folder, settings["dtype"])
        if unread is None:
            return None
        loaded: Any = THINKER.from_pretrained(None, state_dict=unread, **settings)
    where: dict[str, Any] = {"local_files_only": True}
    if not (folder / "generation_config.json").is_file():  # its config has these settings, too
        where |= {"config_file_name": "config.json", "_from_model_config": True}
    loaded[0].generation_config = GenerationConfig.from_pretrained(folder, **where)
    return loaded


def _check_report(report: Any, folder: Any) -> None:
    """Refuse a model in which anything stayed random."""
    lost = sorted(map(str, report["missing_keys"]))
    lost += [
        str(item[0] if isinstance(item, tuple) else item) for item in report["mismatched_keys"]
    ]
    if lost:
        raise ModelError(
            f"The checkpoint lacks {len(lost)} of the model's weights, {lost[0]} among them.",
            path=folder,
            hint="Download it again, or name another model with --model.",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep libraries from printing, and from the network, while files on the disk are loaded.

    bitsandbytes would fetch a compiled kernel when it is imported on some CPUs.
    """
    from huggingface_hub import constants
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    other = logging.getLogger("bitsandbytes")
    before, offline = other.level, constants.HF_HUB_OFFLINE
    library.set_verbosity_error()
    library.disable_progress_bar()
    other.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        other.setLevel(before)
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
