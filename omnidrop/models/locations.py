"""Finds a model's folder by name or alias, downloads it if needed, and checks that it is complete.

Nothing is loaded here, and torch is not imported.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from omnidrop.errors import ModelError, did_you_mean, printable
from omnidrop.models import hub
from omnidrop.models.family import Family, aliases, families, family_of, recommended_for
from omnidrop.models.folder_checks import AGAIN, check_file, check_files, check_numbers
from omnidrop.recommended import SAFE, Recommended
from omnidrop.stages import Progress

DEMO = "demo"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"

#: State of a model whose download is not complete.
PARTLY = "partly on this machine"

#: Files to download from the hub: no code, no other formats of the weights.
WANTED = ("*.json", "*.txt", "*.safetensors")

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
        # A family of another package may be older than this function.
        by_config = getattr(self.family, "recommended_by", None)
        if by_config is not None and (found := by_config(self.config)) is not None:
            return found
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
        "on this machine", "partly on this machine" (a download that is not complete) or "not on
        this machine".
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


def cached(model: str) -> Path | None:
    """Folder of a complete checkpoint in the hub's cache, or None; uses no network.

    Parameters
    ----------
    model : str
        A hub name, or NAME@REVISION.
    """
    folder = hub.snapshot(*hub.split_revision(model))
    if folder is None:
        return None
    try:
        inspect(folder)
    except (ModelError, OSError, ValueError):
        return None
    return folder


def long_name(model: str) -> str:
    """Return a name with its alias replaced: "3b@main" is HUB/NAME@main."""
    name, at, revision = model.partition("@")
    return aliases().get(name.lower(), name) + at + revision


def find(model: str | None, *, offline: bool = False, progress: Progress | None = None) -> Location:
    """Find a model; download it if needed and allowed.

    Parameters
    ----------
    model : str or None
        A folder, a hub name, an alias ("3b", "7b", "demo"), or None: a model with an alias that is
        in the hub's cache, smaller ones first, else the demo model. A hub name or an alias may end
        in @REVISION: a branch, a tag or a commit.
    offline : bool
        Never use the network.
    progress : callable, optional
        Called with stage, bytes and bytes in all while files are downloaded.

    Raises
    ------
    ModelError
        If it does not exist, is incomplete, or is of no known family.
    """
    try:
        return _find(model, offline, progress)
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
        name = hub.split_revision(long_name(model or ""))[0]
        family = next((f for f in families() if name in getattr(f, "recommended", {})), None)
        return SAFE if family is None else recommended_for(name, family)


def _find(model: str | None, offline: bool, progress: Progress | None) -> Location:
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
    repository = long_name(model)
    path = Path(model).expanduser()
    if repository == model and path.is_dir():
        return _located(path.resolve().name, path, demo=_same(path, demo_folder()))
    if repository == model and path.is_file():
        raise ModelError(
            "A model is a folder; this is a file.", path=model, hint="Give its folder."
        )
    if not _REPOSITORY.fullmatch(hub.split_revision(repository)[0]):
        raise ModelError(f"There is no model {model!r}.", hint=_known(model))
    folder = cached(repository)
    if folder is None:
        if offline:
            name, revision = hub.split_revision(repository)
            held = 0 if revision else hub.held(name)
            where = (
                f"only partly on this machine ({_bytes(held)})" if held else "not on this machine"
            )
            raise ModelError(
                f"{repository} is {where}, and --offline forbids downloads.",
                hint=f"{_meant(name)}Run once without --offline, or: omnidrop models get "
                f"{repository}",
            )
        folder = download(repository, progress=progress)
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


def get_model(model: str, *, progress: Progress | None = None) -> Location:
    """Download a model, or what its copy in the hub's cache lacks, and check it.

    Parameters
    ----------
    model : str
        A hub name or an alias, with or without @REVISION.
    progress : callable, optional
        Called with stage, bytes and bytes in all.

    Raises
    ------
    ModelError
        If it is not a name on the hub, or cannot be downloaded; names the cause.
    """
    repository = long_name(model)
    if not _REPOSITORY.fullmatch(hub.split_revision(repository)[0]):
        raise ModelError(
            f"{model!r} is not a name on the hub.",
            hint=f"Give one such as {next(iter(aliases().values()))}, or {' or '.join(aliases())}.",
        )
    return _located(repository, download(repository, progress=progress))


def download(model: str, *, progress: Progress | None = None) -> Path:
    """Download a model from the hub, or what its copy in the cache lacks; without telemetry.

    Parameters
    ----------
    model : str
        A hub name, or NAME@REVISION.
    progress : callable, optional
        Called with stage, bytes and bytes in all.

    Returns
    -------
    Path
        Its folder in the hub's cache, without files that hold nothing but unused parts.

    Raises
    ------
    ModelError
        If it cannot be downloaded; names the cause. What has come is kept for the next time.
    """
    name, revision = hub.split_revision(model)
    try:
        remote = hub.Remote.open(name, revision)
    except ModelError as error:
        hint = f"{_meant(name)}{error.hint}"
        raise ModelError(error.what, path=error.path, hint=hint) from error
    first = [name for name in ("config.json", INDEX) if name in remote.files]
    remote.fetch(first)
    folder = remote.folder
    config = read_json(folder / "config.json")
    unused = _family(config, folder / "config.json").unused_weights
    remote.fetch(_wanted(list(remote.files), folder, unused), progress)
    remote.finish()
    return folder


def _wanted(names: list[str], folder: Path, unused: Sequence[str]) -> list[str]:
    """Return the files to download: those of the weights as the index lists them."""
    found = [name for name in names if any(fnmatch(name, pattern) for pattern in WANTED)]
    if not (folder / INDEX).is_file():
        return found
    table = read_json(folder / INDEX).get("weight_map")
    needed = used_shards(table, unused) if isinstance(table, dict) else []
    return [name for name in found if not name.endswith(".safetensors") or name in needed]


def inspect(folder: Path) -> dict[str, Any]:
    """Check that a checkpoint is complete and of a known family; return its config.

    Raises
    ------
    ModelError
        If it is not; names the file that is missing or invalid.
    """
    path = folder / "config.json"
    check_files(folder)
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
    unused = family.unused_weights
    check_numbers(config, len(weights(folder, unused)), path, unused)
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


def shards(folder: Path, unused: Sequence[str] = ()) -> list[Path]:
    """List the files of the weights.

    Parameters
    ----------
    folder : Path
    unused : sequence of str
        Prefixes of tensors that are not loaded; files that hold nothing else are left out, and need
        not exist.

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
        files = [folder / name for name in used_shards(table, unused)]
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


def all_shards(folder: Path) -> bool:
    """Whether the files that hold nothing but unused tensors are here as well."""
    if not (folder / INDEX).is_file():
        return True
    names = {str(name) for name in read_json(folder / INDEX)["weight_map"].values()}
    return all((folder / name).is_file() for name in names)


def used_shards(table: Mapping[str, object], unused: Sequence[str]) -> list[str]:
    """Return the names of the files that hold more than unused tensors.

    Parameters
    ----------
    table : mapping
        The index's `weight_map`: tensor to file name.
    unused : sequence of str
        Prefixes of tensors that are not loaded.
    """
    return sorted({str(file) for name, file in table.items() if not name.startswith(tuple(unused))})


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
        for file in shards(folder, unused)
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
    check_file(path)
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
            find(DEMO, offline=True).recommended if demo.is_dir() else SAFE,
        )
    ]
    found += [
        (alias, name, cached(name), recommended_for(name, family))
        for family in families()
        for alias, name in family.aliases.items()
    ]
    return [_known_model(*entry) for entry in found]


def _known_model(
    alias: str, name: str, folder: Path | None, recommended: Recommended
) -> KnownModel:
    if folder is not None:
        held, state, place = _size(folder), "on this machine", printable(folder)
        return KnownModel(alias, name, state, held, place, recommended)
    part = hub.held(name)
    if part:
        return KnownModel(alias, name, PARTLY, _bytes(part), recommended=recommended)
    return KnownModel(alias, name, "not on this machine", recommended=recommended)


def _size(folder: Path) -> str:
    return _bytes(sum(os.stat(file).st_size for file in folder.rglob("*") if file.is_file()))


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
