"""Finds a model's folder by name or alias, downloads it if needed, and checks that it is complete.

Nothing is loaded here, and torch is not imported.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnidrop.errors import ModelError, did_you_mean, printable
from omnidrop.models.family import Family, aliases, families, family_of, recommended_for
from omnidrop.recommended import SAFE, Recommended

DEMO = "demo"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"

#: Files to download from the hub: no code, no other formats of the weights.
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
    family : Family
        The family of its `model_type`.
    """

    name: str
    folder: Path
    demo: bool
    config: dict[str, Any]
    family: Family

    @property
    def recommended(self) -> Recommended:
        """The method and budget of questions that name none."""
        # A folder that is only called "demo" is another model.
        name = DEMO if self.demo else "" if self.name == DEMO else self.name
        return recommended_for(name, self.family)


@dataclass(frozen=True)
class Weight:
    """One tensor of a checkpoint: name, dtype as safetensors names it, shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

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
        The short name, and the hub name it stands for.
    state : str
        "on this machine" or "not on this machine".
    size : str or None
        Size of its files on this machine.
    folder : str or None
        Its folder; None if it is not on this machine.
    recommended : Recommended
        The method and budget of questions that name none.
    """

    alias: str
    name: str
    state: str
    size: str | None = None
    folder: str | None = None
    recommended: Recommended = SAFE


def demo_folder() -> Path:
    """Folder of the demo model: inside an installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_demo"
    return shipped if shipped.is_dir() else package.parent / "samples" / "demo-model"


def cached(repository: str) -> Path | None:
    """Folder of a complete checkpoint in the hub's cache, or None; uses no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
        inspect(folder)
    except (LocalEntryNotFoundError, HFValidationError, ModelError, OSError, ValueError):
        return None
    return folder


def find(model: str | None, *, offline: bool = False) -> Location:
    """Find a model; download it if needed and allowed.

    Parameters
    ----------
    model : str or None
        A folder, a hub name, an alias ("3b", "7b", "demo"), or None: a model with an alias that is
        in the hub's cache, smaller ones first, else the demo model.
    offline : bool
        Never use the network.

    Raises
    ------
    ModelError
        If it does not exist, is incomplete, or is of no known family.
    """
    try:
        return _find(model, offline)
    except (OSError, RuntimeError) as error:  # names and folders that the system rejects
        raise ModelError(
            f"This model cannot be opened: {error}.", path=model, hint=_known()
        ) from error


def recommended_by_name(model: str | None) -> Recommended:
    """Return a model's method and budget of questions that name none; downloads nothing.

    Parameters
    ----------
    model : str or None
        As `find` takes it. Of a model that is not on this machine, only its name is known.
    """
    try:
        return find(model, offline=True).recommended
    except ModelError:
        name = aliases().get((model or "").lower(), model or "")
        family = next((f for f in families() if name in getattr(f, "recommended", {})), None)
        return SAFE if family is None else recommended_for(name, family)


def _find(model: str | None, offline: bool) -> Location:
    if model is None:
        for repository in aliases().values():
            folder = cached(repository)
            if folder is not None:
                return _located(repository, folder)
        model = DEMO
    if not model.strip() or "\0" in model:
        raise ModelError("The model's name is empty.", hint=_known())
    if model.lower() == DEMO:
        return _located(DEMO, demo_folder(), demo=True)
    repository = aliases().get(model.lower(), model)
    path = Path(model).expanduser()
    if repository == model and path.is_dir():
        return _located(path.resolve().name, path, demo=_same(path, demo_folder()))
    if repository == model and path.is_file():
        raise ModelError(
            "A model is a folder; this is a file.", path=model, hint="Give its folder."
        )
    if not _REPOSITORY.fullmatch(repository):
        raise ModelError(f"There is no model {model!r}.", hint=_known(model))
    folder = cached(repository)
    if folder is None:
        if offline:
            raise ModelError(
                f"{repository} is not on this machine, and --offline forbids downloads.",
                hint=f"{_meant(repository)}Run once without --offline, or: hf download "
                f"{repository}",
            )
        folder = _download(repository)
    return _located(repository, folder)


def _same(a: Path, b: Path) -> bool:
    return b.is_dir() and a.samefile(b)


def _known(given: str = "") -> str:
    """Say what was meant by a name that is not known, and what there is."""
    known = aliases()
    names = ", ".join([*known, DEMO])
    return (
        f"{_meant(given)}Give a folder, a hub name such as {next(iter(known.values()))}, or one "
        f"of: {names}."
    )


def _meant(given: str) -> str:
    """Suggest a short name, or a hub name that differs in little."""
    known = aliases()
    if given in known.values():
        return ""
    by_size = [alias for alias in known if alias in given.lower()]
    if by_size and "/" not in given:  # like "omni-7b"
        return f"Did you mean {by_size[0]}? "
    names = [*known.values()] if "/" in given else [*known, DEMO]
    return did_you_mean(given, names, cutoff=0.7 if "/" in given else 0.5)


def _located(name: str, folder: Path, *, demo: bool = False) -> Location:
    if demo and not folder.is_dir():
        raise ModelError(
            "The demo model is missing from this installation.",
            path=folder,
            hint="Install OmniDrop again, or name a model: --model 3b",
        )
    config = inspect(folder)
    family = _family(config, folder / "config.json")
    return Location(name=name, folder=folder, demo=demo, config=config, family=family)


def _download(repository: str) -> Path:
    """Download a model from the hub, without telemetry; show progress only on a terminal."""
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
        what = "it needs a permission" if isinstance(error, GatedRepoError) else "no such model"
        raise ModelError(
            f"{repository} cannot be downloaded: {what}.", hint=_known(repository)
        ) from error
    except OfflineModeIsEnabled as error:
        raise ModelError(
            f"{repository} is not on this machine, and HF_HUB_OFFLINE is set.",
            hint=f"Unset it once, or: hf download {repository}",
        ) from error
    except OSError as error:
        if error.errno is None:  # raised by the library, not by the system
            raise _unreachable(repository, error) from error
        raise ModelError(
            f"{repository} cannot be saved: {error.strerror}.",
            path=constants.HF_HUB_CACHE,
            hint="Free some disk space, or set HF_HOME to another folder.",
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
        hint=f"{_meant(repository)}Check the network, or use a model that is here: omnidrop models",
    )


def inspect(folder: Path) -> dict[str, Any]:
    """Check that a checkpoint is complete and of a known family; return its config.

    Raises
    ------
    ModelError
        If it is not; names the file that is missing or invalid.
    """
    path = folder / "config.json"
    config = read_json(path)
    family = _family(config, path)
    if part := family.missing_part(config):
        raise ModelError(f"The config has no {part}.", path=path, hint=AGAIN)
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    if any("quantization_config" in part for part in parts):
        raise ModelError(
            "These weights are already quantised, in a format that OmniDrop does not support.",
            path=path,
            hint="Use the unquantised checkpoint with --4bit or --8bit.",
        )
    if not (folder / "tokenizer.json").is_file() and not all(
        (folder / name).is_file() for name in ("vocab.json", "merges.txt")
    ):
        raise ModelError("The tokenizer is missing.", path=folder / "tokenizer.json", hint=AGAIN)
    weights(folder)
    return config


def _family(config: dict[str, Any], path: Path) -> Family:
    """Return the family of a config; `path` is for the error."""
    kind = config.get("model_type")
    family = family_of(kind)
    if family is None:
        known = ", ".join(f"{f.name} ({', '.join(f.model_types)})" for f in families())
        raise ModelError(
            f"This is a {kind or 'model of unknown type'}; OmniDrop supports {known}.",
            path=path,
            hint=_known(),
        )
    return family


def shards(folder: Path) -> list[Path]:
    """Files of the weights.

    Raises
    ------
    ModelError
        If one is missing; names it.
    """
    if (folder / INDEX).is_file():
        table = read_json(folder / INDEX).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise ModelError("The index lists no weights.", path=folder / INDEX, hint=AGAIN)
        names = sorted({str(name) for name in table.values()})
        if any(Path(name).name != name for name in names):
            raise ModelError(
                "The index lists files outside the model's folder.", path=folder / INDEX, hint=AGAIN
            )
        files = [folder / name for name in names]
    else:
        files = [folder / SINGLE]
    for file in files:
        if not file.is_file():
            other = any(folder.glob("*.bin")) or any(folder.glob("*.gguf"))
            raise ModelError(
                "There are no weights in safetensors format."
                if other
                else "A weights file is missing.",
                path=file,
                hint=AGAIN,
            )
    return files


def weights(folder: Path, unused: Sequence[str] = ()) -> list[Weight]:
    """List the tensors of a checkpoint from the headers of its files.

    Parameters
    ----------
    folder : Path
    unused : sequence of str
        Prefixes of tensors to leave out.

    Raises
    ------
    ModelError
        If a file is missing, damaged or truncated.
    """
    return [
        weight
        for file in shards(folder)
        for weight in header(file)
        if not weight.name.startswith(tuple(unused))
    ]


def header(path: Path) -> list[Weight]:
    """List the tensors of one file; safetensors checks that they fill it.

    Raises
    ------
    ModelError
        If the file is missing, damaged or truncated.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # safetensors reports every file that it cannot open as missing.
        path.open("rb").close()
        with safe_open(path, framework="np") as file:
            entries = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118
            return [
                Weight(name, str(entry.get_dtype()), tuple(entry.get_shape()))
                for name, entry in entries
            ]
    except PermissionError as error:
        raise ModelError(
            "There is no permission to read this file.", path=path, hint="Change its permissions."
        ) from error
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"This weights file is damaged or truncated ({error}).", path=path, hint=AGAIN
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
            "This file is missing, so the model is incomplete.", path=path, hint=AGAIN
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"This file cannot be read: {error}.", path=path, hint=AGAIN) from error
    if not isinstance(value, dict):
        raise ModelError("This file is not a JSON object.", path=path, hint=AGAIN)
    return value


def known_models() -> list[KnownModel]:
    """List the models that have a short name, and which of them are on this machine.

    Returns
    -------
    list of KnownModel
        The demo model, then the hub's by size.
    """
    demo = demo_folder()
    found = [
        (
            DEMO,
            "small model that comes with OmniDrop",
            demo if demo.is_dir() else None,
            _find(DEMO, offline=True).recommended if demo.is_dir() else SAFE,
        )
    ]
    found += [
        (alias, name, cached(name), recommended_for(name, family))
        for family in families()
        for alias, name in family.aliases.items()
    ]
    return [
        KnownModel(
            alias,
            name,
            "not on this machine" if folder is None else "on this machine",
            None if folder is None else _size(folder),
            None if folder is None else printable(folder),
            recommended,
        )
        for alias, name, folder, recommended in found
    ]


def _size(folder: Path) -> str:
    count = sum(os.stat(file).st_size for file in folder.rglob("*") if file.is_file())
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
