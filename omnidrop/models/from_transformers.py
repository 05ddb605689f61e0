"""Loads a checkpoint with transformers; shared by all families whose classes it has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from omnidrop.models import experts as experts_module
from omnidrop.models import pinned
from omnidrop.models.family import LoadRequest
from omnidrop.models.folder_checks import refuse_missing, refuse_other_shapes
from omnidrop.models.locations import all_shards, shards
from omnidrop.models.mapped import keep_mapped
from omnidrop.models.quantising import check_quantised, pack, quantisation
from omnidrop.models.scratch import Scratch


def load(
    kind: Any,
    config: Any,
    request: LoadRequest,
    unused: Sequence[str] = (),
    *,
    quantised: Callable[[str], bool],
    experts: type | None = None,
) -> tuple[Any, Any]:
    """Load a model and its tokenizer from safetensors; code in a checkpoint is never run.

    Parameters
    ----------
    kind : type
        The model class of transformers.
    config : PreTrainedConfig
        Config of the model.
    request : LoadRequest
    unused : sequence of str
        Prefixes of weights that are not loaded.
    quantised : callable
        The family's `Family.quantised`.
    experts : type, optional
        The module of a layer's router and experts in transformers, for families that have some.
        Quantised loading, and loading that keeps weights mapped, replace it
        (`omnidrop.models.experts`).

    Returns
    -------
    model, tokenizer

    Raises
    ------
    ModelError
        If weights are missing or the wrong parts were quantised.
    """
    small = experts is not None and (request.quantize is not None or request.stored is not None)
    if small and experts is not None:
        kind = experts_module.with_small_experts(kind, experts, request.quantize)
    with quiet():
        model, report, tokenizer = _from_disk(kind, config, request, unused, small)
        _check_report(report, request.folder)
        if small:
            experts_module.fill(model, request.folder, request.dtype, tuple(unused))
    if request.stored is not None:
        scratch = Scratch(request.dtype)
        if request.quantize is not None:
            pack(model, request.quantize, scratch)
        if request.stored != request.dtype:
            keep_mapped(model, request.dtype, scratch)
    if request.quantize is not None:
        check_quantised(model, request.folder, quantised)
    return model, tokenizer


def _from_disk(
    kind: Any, config: Any, request: LoadRequest, unused: Sequence[str], small: bool
) -> tuple[Any, Any, Any]:
    """Return the model, transformers' loading report, and the tokenizer."""
    from transformers import AutoTokenizer

    folder = request.folder
    settings: dict[str, Any] = {}
    if request.quantize is not None and request.stored is None:
        settings["quantization_config"] = quantisation(
            request.quantize, kind, config, request.dtype
        )
    if request.device.type != "cpu":
        settings["device_map"] = {"": str(request.device)}
    settings |= {
        "config": config,
        "dtype": request.stored or request.dtype,
        "attn_implementation": request.attention,
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
    }
    loaded: Any = None
    if pinned.reads_pinned(request.device):
        loaded = _read_pinned(kind, request, settings, unused, small)
    if loaded is None and (request.stored is not None or not all_shards(folder)):
        loaded = _read_used(kind, request, settings, unused, small)
    if loaded is None:
        loaded = kind.from_pretrained(folder, **settings)
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    return *loaded, tokenizer


def _read_pinned(
    kind: Any,
    request: LoadRequest,
    settings: dict[str, Any],
    unused: Sequence[str],
    small: bool,
) -> Any:
    """Load with weights read by `omnidrop.models.pinned`; None if that is not possible."""
    folder = request.folder
    try:
        reader = pinned.PinnedReader(request.device)
    except RuntimeError:  # the system cannot pin more memory
        return None
    with reader:
        unread = reader.lazy(folder, request.dtype, unused)
        if unread is None:
            return None
        loaded: Any = kind.from_pretrained(
            None, state_dict=_without_experts(unread, small), **settings
        )
    _add_generation_config(loaded[0], folder)
    return loaded


def _read_used(
    kind: Any,
    request: LoadRequest,
    settings: dict[str, Any],
    unused: Sequence[str],
    small: bool,
) -> Any:
    """Load from the files that hold used weights; transformers asks for all in the index."""
    from safetensors import safe_open

    unread: dict[str, Any] = {}
    with ExitStack() as files:
        for path in shards(request.folder, unused):
            file = files.enter_context(safe_open(path, framework="pt"))
            names = [name for name in file.keys() if not name.startswith(tuple(unused))]  # noqa: SIM118
            unread |= {name: file.get_slice(name) for name in names}
        loaded: Any = kind.from_pretrained(
            None, state_dict=_without_experts(unread, small), **settings
        )
    _add_generation_config(loaded[0], request.folder)
    return loaded


def _without_experts(unread: dict[str, Any], small: bool) -> dict[str, Any]:
    """Leave out experts that have modules of our own: they are read later, one by one."""
    if not small:
        return unread
    return {k: v for k, v in unread.items() if not experts_module.is_expert(k)}


def _add_generation_config(model: Any, folder: Path) -> None:
    """Read the settings of generation, which transformers reads only along with its own files."""
    from transformers import GenerationConfig

    where: dict[str, Any] = {"local_files_only": True}
    if not (folder / "generation_config.json").is_file():  # the config has these settings, too
        where |= {"config_file_name": "config.json", "_from_model_config": True}
    model.generation_config = GenerationConfig.from_pretrained(folder, **where)


def _check_report(report: Any, folder: Path) -> None:
    """Raise an error if any weight was not loaded and so stayed random."""
    refuse_other_shapes(report["mismatched_keys"], folder)
    refuse_missing(report["missing_keys"], folder)


@contextmanager
def quiet() -> Iterator[None]:
    """Stop libraries from printing and from using the network while files are loaded.

    On some CPUs bitsandbytes would download a compiled kernel when it is imported.
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
