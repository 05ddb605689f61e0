"""The checks of `omnidrop doctor`: each returns findings, and none can stop the others."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from omnidrop.format import duration, size

OK, NOTE, WRONG = "ok", "note", "wrong"
NEEDED = (
    "torch", "transformers", "accelerate", "av", "soundfile", "numpy", "safetensors",
    "bitsandbytes", "matplotlib", "psutil", "typer", "rich",
)  # fmt: skip
DECODERS = {
    "h264": "H.264", "hevc": "H.265", "vp9": "VP9", "av1": "AV1", "mpeg4": "MPEG-4",
    "gif": "GIF", "aac": "AAC", "mp3": "MP3", "opus": "Opus", "vorbis": "Vorbis", "flac": "FLAC",
}  # fmt: skip
ALTERNATIVES = {"av1": ("libdav1d", "av1"), "mp3": ("mp3float", "mp3"), "opus": ("opus", "libopus")}
SMALLEST_MODEL = 12e9


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes
    ----------
    mark : str
        "ok", "note" (works, but), or "wrong".
    name, value : str
    remedy : str
        What to type or do; empty where nothing is needed.
    """

    mark: str
    name: str
    value: str
    remedy: str = ""


def checkup() -> list[Finding]:
    """Return every finding; a check that fails is itself a finding."""
    found: list[Finding] = []
    for check in (
        _versions,
        _model_code,
        _processor,
        _devices,
        _memory,
        _quantising,
        _codecs,
        _cache,
        _screen,
    ):
        try:
            found += list(check())
        except Exception as problem:
            name = check.__name__.strip("_")
            found.append(Finding(WRONG, name, f"{type(problem).__name__}: {problem}"))
    return found


def _versions() -> Iterator[Finding]:
    from omnidrop import __version__

    yield Finding(OK, "omnidrop", __version__)
    version = sys.version_info
    fits = (3, 11) <= version[:2] <= (3, 13)
    yield Finding(
        OK if fits else NOTE,
        "python",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "" if fits else "Tested on Python 3.11 to 3.13.",
    )
    ranges = _tested_ranges()
    for package in NEEDED:
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:
            yield Finding(WRONG, package, "not installed", f"pip install {package}")
            continue
        tested = ranges.get(package)
        if tested is None or tested(installed):
            yield Finding(OK, package, installed)
        else:
            yield Finding(
                NOTE, package, f"{installed}, not a version tested", "pip install -U omnidrop"
            )


def _model_code() -> Iterator[Finding]:
    """Import what `ask` imports: an installed package need not be one that can be imported."""
    from omnidrop.models import FAMILIES
    from omnidrop.models.unneeded import keep_out_torchvision

    broken = keep_out_torchvision()
    if broken is not None:
        yield Finding(
            NOTE,
            "torchvision",
            f"cannot be imported, and is left out ({broken})",
            "Nothing here needs it: pip uninstall torchvision, or install the one for this torch.",
        )
    for module in ("omnidrop.engine.session", "omnidrop.clip.clip", *map(_adapter, FAMILIES)):
        try:
            importlib.import_module(module)
        except Exception as problem:
            reason = " ".join(f"{type(problem).__name__}: {problem}".split())
            yield Finding(WRONG, "imports", f"{module}: {reason}", "pip install -U omnidrop")
            return
    yield Finding(OK, "imports", "the code of every model")


def _adapter(family: str) -> str:
    """Return the module that runs a family's model; it imports transformers' own."""
    adapter = f"{family}.adapter"
    return adapter if importlib.util.find_spec(adapter) is not None else family


def _tested_ranges() -> dict[str, Callable[[str], bool]]:
    """Return, for each requirement of the installed package, whether a version is in its range."""
    try:
        from packaging.requirements import Requirement

        lines = metadata.requires("omnidrop") or []
    except (ImportError, metadata.PackageNotFoundError):
        return {}
    found: dict[str, Callable[[str], bool]] = {}
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None:
            spec = requirement.specifier
            found[requirement.name] = partial(spec.contains, prereleases=True)
    return found


def _processor() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    yield Finding(OK, "cpu", f"{cores} cores, torch uses {threads} threads")
    full, half = (_matmul_seconds(t) for t in (torch.float32, torch.bfloat16))
    value = f"float32 {duration(full)}, bfloat16 {duration(half)} for a 512×512×512 product"
    if half > 1.5 * full:
        yield Finding(
            NOTE,
            "cpu speed",
            value,
            f"On this CPU bfloat16 is {half / full:.1f} times slower, so models compute in "
            "float32: weights stay in 16 bits, and are widened when they are used.",
        )
    else:
        yield Finding(OK, "cpu speed", value)


def _matmul_seconds(dtype: object) -> float:
    import torch

    a = torch.ones(512, 512).to(dtype)  # type: ignore[call-overload]
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return best


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            free, total = torch.cuda.mem_get_info(i)
            half = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16: --dtype float16"
            yield Finding(OK, f"cuda:{i}", f"{p.name}, {size(free)} free of {size(total)}, {half}")
    elif torch.backends.mps.is_available():
        yield Finding(OK, "mps", "Apple GPU")
    else:
        from omnidrop.models.packed import quick_4_bits

        built = torch.version.cuda or torch.version.hip
        driver = shutil.which("nvidia-smi") is not None
        if driver and not built:
            yield Finding(
                NOTE,
                "gpu",
                "an NVIDIA driver is here, but this torch is built for the CPU",
                "Install a CUDA build: see https://pytorch.org/get-started/locally/",
            )
        else:
            yield Finding(
                NOTE,
                "gpu",
                "none; models run on the CPU",
                "Short clips and --max-pixels 50176 keep it bearable"
                + (", and so does --4bit." if quick_4_bits() else "."),
            )
    flash = importlib.util.find_spec("flash_attn") is not None
    yield Finding(OK, "attention", "sdpa and flash" if flash else "sdpa; flash is not installed")


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    short = memory.available < SMALLEST_MODEL
    yield Finding(
        NOTE if short else OK,
        "memory",
        f"{size(memory.available)} free of {size(memory.total)}",
        "The 3B model in bfloat16 needs about 12 GB: use --4bit." if short else "",
    )


def _quantising() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        yield from _quantising_on_a_gpu()
        return
    from omnidrop.models.packed import multiplies_8_bits, quick_4_bits

    quick = [bits for bits, there in (("4", quick_4_bits()), ("8", multiplies_8_bits())) if there]
    if len(quick) == 2:
        yield Finding(OK, "4 and 8 bits", "quick products on this CPU")
    else:
        yield Finding(
            NOTE,
            "4 and 8 bits",
            f"no quick products on this CPU{f', except of {quick[0]} bits' if quick else ''}",
            "--4bit and --8bit save memory, but decode slowly.",
        )


def _quantising_on_a_gpu() -> Iterator[Finding]:
    import torch

    if importlib.util.find_spec("bitsandbytes") is None:
        return
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weights = torch.linspace(-1, 1, 4096, device="cuda").reshape(64, 64)
    packed, state = quantize_4bit(weights, quant_type="nf4")
    error = float((dequantize_4bit(packed, state) - weights).abs().max())
    good = error < 0.2
    yield Finding(
        OK if good else WRONG,
        "4 bits",
        "works on cuda" if good else "gives wrong numbers on cuda",
        "" if good else "pip install -U bitsandbytes",
    )


def _codecs() -> Iterator[Finding]:
    import av
    import av.codec

    known = av.codec.codecs_available
    missing = [
        shown
        for name, shown in DECODERS.items()
        if not any(n in known for n in ALTERNATIVES.get(name, (name,)))
    ]
    yield Finding(
        WRONG if missing else OK,
        "codecs",
        f"missing: {', '.join(missing)}" if missing else ", ".join(DECODERS.values()),
        "pip install -U av" if missing else "",
    )


def _cache() -> Iterator[Finding]:
    from omnidrop.models.locations import DEMO, PARTLY, known_models

    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    known = [model for model in known_models() if model.alias != DEMO]
    models = [model.name for model in known if model.folder is not None]
    place = next((p for p in (hub, *hub.parents) if p.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    yield Finding(
        OK,
        "cache",
        f"{hub}, {size(free)} free; "
        + (f"holds {', '.join(models)}" if models else "holds no model that has a short name"),
        "" if models else "omnidrop models get 3b downloads one; the demo model needs none.",
    )
    for model in known:
        if model.state == PARTLY:
            yield Finding(
                NOTE,
                "download",
                f"{model.name} is {PARTLY}: {model.size}",
                f"omnidrop models get {model.alias} goes on where it ended.",
            )
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        yield Finding(NOTE, "network", "HF_HUB_OFFLINE is set: nothing is downloaded")


def config_findings(commands: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the config file in use, checked against the options of all commands."""
    from omnidrop.errors import UsageError
    from omnidrop_cli.config import VARIABLE, check_config, config_path

    path = config_path()
    named = f", from {VARIABLE}" if os.environ.get(VARIABLE) else ""
    try:
        count = check_config(commands)
    except UsageError as problem:
        yield Finding(WRONG, "config", f"{path}{named}: {problem.what}", problem.hint or "")
        return
    values = "1 value" if count == 1 else f"{count} values"
    there = f": {values}" if path.exists() else ", which does not exist: nothing is set"
    yield Finding(OK, "config", f"{path}{named}{there}")


def _screen() -> Iterator[Finding]:
    encoding = (getattr(sys.stderr, "encoding", None) or "?").lower()
    good = "utf" in encoding
    yield Finding(
        OK if good else NOTE,
        "terminal",
        f"{shutil.get_terminal_size().columns} columns, {encoding}"
        + (", no colour" if os.environ.get("NO_COLOR") else ""),
        "" if good else "export PYTHONUTF8=1 shows the report's glyphs.",
    )
