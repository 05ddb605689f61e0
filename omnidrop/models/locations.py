"""Where a model is: names, aliases, the hub's cache, the demo model; and whether it is complete.

Nothing is loaded here, and torch is not imported.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnidrop.errors import ModelError, printable

ALIASES = {"3b": "Qwen/Qwen2.5-Omni-3B", "7b": "Qwen/Qwen2.5-Omni-7B"}
DEMO = "demo"
MODEL_TYPES = ("qwen2_5_omni", "qwen2_5_omni_thinker")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"

#: Parts of a checkpoint that speak, and are not loaded.
UNUSED = ("talker.", "token2wav.")

#: What is fetched from the hub: no code, no other formats of the weights.
WANTED = ("*.json", "*.txt", "*.safetensors")

AGAIN = "Download it again, or name another model with --model."

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Location:
    """A complete checkpoint on this machine.

    Attributes
    ----------
    name : str
        Hub name, folder name, or "demo".
    folder : Path
    demo : bool
        True for the model that ships with the package.
    config : dict
        The checkpoint's config.json.
    """

    name: str
    folder: Path
    demo: bool
    config: dict[str, Any]

    @property
    def thinker_config(self) -> dict[str, Any]:
        """The part of the config that is about the model we load."""
        return self.config.get("thinker_config") or self.config


@dataclass(frozen=True)
class Weight:
    """One tensor of a checkpoint.

    Attributes
    ----------
    name : str
    dtype : str
        As safetensors writes it.
    shape : tuple of int
    offset : int
        Where in its file its first byte is.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class KnownModel:
    """A model that has a short name.

    Attributes
    ----------
    alias, name : str
        What to type, and what it stands for.
    state : str
        "on this machine" or "not on this machine".
    size : str or None
        Size of its files here.
    folder : str or None
        Where it is; None if it is not here.
    """

    alias: str
    name: str
    state: str
    size: str | None = None
    folder: str | None = None

    @property
    def ready(self) -> bool:
        """Whether it can be loaded without a download."""
        return self.folder is not None


def demo_folder() -> Path:
    """Folder of the demo model: in an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_demo"
    return shipped if shipped.is_dir() else package.parent / "samples" / "demo-model"


def cached(repository: str) -> Path | None:
    """Folder of a complete checkpoint in the hub's cache, or None; the network is not used."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
        inspect(folder)
    except (LocalEntryNotFoundError, HFValidationError, ModelError, OSError, ValueError):
        return None
    return folder


def find(model: str | None, *, offline: bool = False) -> Location:
    """Find a model, downloading it if need be and allowed.

    Parameters
    ----------
    model : str or None
        A folder, a hub name, an alias ("3b", "7b", "demo"), or None: a cached Qwen2.5-Omni, the
        smaller first, else the demo model.
    offline : bool
        Never use the network.

    Raises
    ------
    ModelError
        If it is not there, is incomplete, or is no model that OmniDrop knows.
    """
    try:
        return _find(model, offline)
    except (OSError, RuntimeError) as error:  # names and folders the system will not look at
        raise ModelError(
            f"This model cannot be opened: {error}.", path=model, hint=_known()
        ) from error


def _find(model: str | None, offline: bool) -> Location:
    if model is None:
        for repository in ALIASES.values():
            folder = cached(repository)
            if folder is not None:
                return _located(repository, folder)
        model = DEMO
    if not model.strip() or "\0" in model:
        raise ModelError("The model has no name.", hint=_known())
    if model.lower() == DEMO:
        return _located(DEMO, demo_folder(), demo=True)
    repository = ALIASES.get(model.lower(), model)
    path = Path(model).expanduser()
    if repository == model and path.is_dir():
        return _located(path.resolve().name, path, demo=_same(path, demo_folder()))
    if repository == model and path.is_file():
        raise ModelError(
            "A model is a folder, and this is a file.", path=model, hint="Name its folder."
        )
    if not _REPOSITORY.fullmatch(repository):
        raise ModelError(f"There is no model {model!r}.", hint=_known())
    folder = cached(repository)
    if folder is None:
        if offline:
            raise ModelError(
                f"{repository} is not on this machine, and downloads are off (--offline).",
                hint=f"Run once without --offline, or: hf download {repository}",
            )
        folder = _download(repository)
    return _located(repository, folder)


def _same(a: Path, b: Path) -> bool:
    return b.is_dir() and a.samefile(b)


def _known() -> str:
    return f"Name a folder, a hub name such as {ALIASES['3b']}, or one of: 3b, 7b, demo."


def _located(name: str, folder: Path, *, demo: bool = False) -> Location:
    if demo and not folder.is_dir():
        raise ModelError(
            "The demo model is missing from this installation.",
            path=folder,
            hint="Install OmniDrop again, or name a model: --model 3b",
        )
    return Location(name=name, folder=folder, demo=demo, config=inspect(folder))


def _download(repository: str) -> Path:
    """Fetch a model from the hub, without telemetry; its progress bars only on a terminal."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    constants.HF_HUB_DISABLE_TELEMETRY = True
    quiet = sys.stderr is None or not sys.stderr.isatty()
    if quiet:
        disable_progress_bars()
    try:
        return Path(snapshot_download(repository, allow_patterns=list(WANTED)))
    except RepositoryNotFoundError as error:
        what = "it asks for a permission" if isinstance(error, GatedRepoError) else "no such model"
        raise ModelError(
            f"The hub does not give out {repository}: {what}.", hint=_known()
        ) from error
    except OfflineModeIsEnabled as error:
        raise ModelError(
            f"{repository} is not on this machine, and HF_HUB_OFFLINE is set.",
            hint=f"Unset it once, or: hf download {repository}",
        ) from error
    except OSError as error:
        if error.errno is None:  # a library's own
            raise _unreachable(repository, error) from error
        raise ModelError(
            f"{repository} cannot be saved: {error.strerror}.",
            path=constants.HF_HUB_CACHE,
            hint="Free some disk, or set HF_HOME to another folder.",
        ) from error
    except Exception as error:  # whatever its HTTP library raises
        raise _unreachable(repository, error) from error
    finally:
        if quiet:
            enable_progress_bars()


def _unreachable(repository: str, error: Exception) -> ModelError:
    return ModelError(
        f"{repository} is not on this machine and the hub cannot be reached "
        f"({type(error).__name__}).",
        hint="Check the network, or use a model that is here: omnidrop models",
    )


def inspect(folder: Path) -> dict[str, Any]:
    """Check that a checkpoint is complete and of a family we know; return its config.

    Raises
    ------
    ModelError
        Naming the file that is missing or wrong.
    """
    path = folder / "config.json"
    config = read_json(path)
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise ModelError(
            f"This is a {kind or 'model of no known type'}; OmniDrop runs Qwen2.5-Omni "
            f"({', '.join(MODEL_TYPES)}).",
            path=path,
            hint=_known(),
        )
    thinker = config.get("thinker_config") or config
    for part in ("text_config", "vision_config", "audio_config"):
        if not isinstance(thinker, dict) or not isinstance(thinker.get(part), dict):
            raise ModelError(f"The config has no {part}.", path=path, hint=AGAIN)
    if "quantization_config" in {**config, **thinker}:
        raise ModelError(
            "These weights are quantised already, in a way that OmniDrop does not run.",
            path=path,
            hint="Use the plain checkpoint with --4bit or --8bit.",
        )
    if not (folder / "tokenizer.json").is_file() and not all(
        (folder / name).is_file() for name in ("vocab.json", "merges.txt")
    ):
        raise ModelError("The tokenizer is missing.", path=folder / "tokenizer.json", hint=AGAIN)
    weights(folder)
    return config


def shards(folder: Path) -> list[Path]:
    """Files that hold the weights, each of them there.

    Raises
    ------
    ModelError
        Naming the one that is missing.
    """
    if (folder / INDEX).is_file():
        table = read_json(folder / INDEX).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise ModelError("The index names no weights.", path=folder / INDEX, hint=AGAIN)
        names = sorted({str(name) for name in table.values()})
        if any(Path(name).name != name for name in names):
            raise ModelError(
                "The index names files outside the model's folder.", path=folder / INDEX, hint=AGAIN
            )
        files = [folder / name for name in names]
    else:
        files = [folder / SINGLE]
    for file in files:
        if not file.is_file():
            other = any(folder.glob("*.bin")) or any(folder.glob("*.gguf"))
            raise ModelError(
                "Weights are read from safetensors only, and there are none."
                if other
                else "A file of weights is missing.",
                path=file,
                hint=AGAIN,
            )
    return files


def weights(folder: Path) -> list[Weight]:
    """List the tensors of a checkpoint from the headers of its files, unused parts left out.

    Raises
    ------
    ModelError
        If a file is missing, damaged or cut off.
    """
    return [
        weight
        for file in shards(folder)
        for weight in header(file)
        if not weight.name.startswith(UNUSED)
    ]


def header(path: Path) -> list[Weight]:
    """Read a safetensors header: 8 bytes of length, then JSON; tensors follow to the last byte.

    Raises
    ------
    ModelError
        If the file is missing, damaged or cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, 100_000_000):
                raise ValueError("its header is longer than it")
            told = json.loads(file.read(length))
        told.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in told.values()), default=0)
        if size < 8 + length + end:
            raise ValueError(f"it has {size} of {8 + length + end} bytes")
        return [
            Weight(
                name,
                entry["dtype"],
                tuple(entry["shape"]),
                8 + length + entry["data_offsets"][0],
            )
            for name, entry in told.items()
        ]
    except PermissionError as error:
        raise ModelError("This file may not be read.", path=path) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(
            f"This file of weights is damaged or cut off ({error}).", path=path, hint=AGAIN
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ModelError
        If the file is missing or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            "This file is missing, so the folder is no complete model.", path=path, hint=AGAIN
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"This file cannot be read: {error}.", path=path, hint=AGAIN) from error
    if not isinstance(value, dict):
        raise ModelError("This file holds no JSON object.", path=path, hint=AGAIN)
    return value


def known_models() -> list[KnownModel]:
    """List the models that have a short name, and which of them are here.

    Returns
    -------
    list of KnownModel
        The demo model, then the hub's by size.
    """
    demo = demo_folder()
    found = [(DEMO, "small model that comes with OmniDrop", demo if demo.is_dir() else None)]
    found += [(alias, name, cached(name)) for alias, name in ALIASES.items()]
    return [
        KnownModel(alias, name, "not on this machine")
        if folder is None
        else KnownModel(alias, name, "on this machine", _size(folder), printable(folder))
        for alias, name, folder in found
    ]


def _size(folder: Path) -> str:
    count = sum(os.stat(file).st_size for file in folder.rglob("*") if file.is_file())
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
