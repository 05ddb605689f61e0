"""Small networks that a method needs, trained for one model: how they are kept and found.

Each kind is two files in one folder: weights as safetensors, and a JSON file with the network's
sizes, the model that it was trained for and how. Nothing else is ever read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from omnidrop.errors import ModelError
from omnidrop.pruning.method import Backbone


@dataclass(frozen=True)
class Network:
    """A network and what is known of it.

    Attributes
    ----------
    module : Module
        As it was read: in float32, in evaluation mode and without gradients.
    shape : mapping
        Its sizes by name: numbers and tuples of numbers. `width` is that of the embeddings that it
        takes.
    backbone, fingerprint : str or None
        Name and fingerprint of the model that it was trained for.
    training : dict
        Settings and losses of the training. Its `decoder` says "trained" of a network that was
        trained together with the model's decoder, which it then serves alone.
    """

    module: nn.Module
    shape: Mapping[str, Any]
    backbone: str | None = None
    fingerprint: str | None = None
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """One kind of network.

    Attributes
    ----------
    stem : str
        Of the files' names, and the name of its folder inside a model's folder.
    what : str
        What errors call it.
    method : str
        Whose it is, as errors name it.
    train : str
        What to do where there is none, up to the name of a folder.
    make : callable
        Makes the network from its sizes: numbers and lists of numbers.
    dtype : torch.dtype
        In which the weights are kept.
    """

    stem: str
    what: str
    method: str
    train: str
    make: Callable[[Mapping[str, Any]], nn.Module]
    dtype: torch.dtype

    @property
    def schema(self) -> str:
        """Name and version of the JSON file's layout."""
        return f"omnidrop.{self.stem}/1"

    @property
    def weights(self) -> str:
        """Name of the file of weights."""
        return f"{self.stem}.safetensors"

    @property
    def settings(self) -> str:
        """Name of the JSON file."""
        return f"{self.stem}.json"

    @property
    def hint(self) -> str:
        """What to do where there is none."""
        return f"{self.train}FOLDER"

    def save(self, folder: Path, network: Network) -> None:
        """Write a network into a folder, which is made if it is not there."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        state = network.module.state_dict()
        kept = {name: value.to(self.dtype).contiguous() for name, value in state.items()}
        save_file(kept, folder / self.weights)
        settings = {
            "schema": self.schema,
            "backbone": network.backbone,
            "fingerprint": network.fingerprint,
            "shape": dict(network.shape),
            "training": network.training,
        }
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (folder / self.settings).write_text(text + "\n", encoding="utf-8")

    def load(self, folder: Path) -> Network:
        """Read a network from a folder.

        Raises
        ------
        ModelError
            If there is none, or its files are damaged.
        """
        files = folder / self.settings, folder / self.weights
        try:
            changed = tuple(file.stat().st_mtime_ns for file in files)
        except OSError as error:
            raise ModelError(
                f"There is no {self.what} here.", path=folder, hint=self.hint
            ) from error
        return _load(self, folder, changed)

    def find(self, given: str | None, backbone: Backbone | None, width: int) -> Network:
        """Return the network for a model.

        Parameters
        ----------
        given : str or None
            A folder; None takes the model's own, in the folder `stem` inside the model's.
        backbone : Backbone or None
            The model, as far as it is known.
        width : int
            Of its embeddings.

        Raises
        ------
        ModelError
            If there is none for this model, or it was trained together with another decoder; says
            how to train one.
        """
        name = backbone.name if backbone else "this model"
        own = backbone.folder / self.stem if backbone and backbone.folder else None
        if given is not None:
            folder = Path(given).expanduser()
        elif own is not None and (own / self.settings).is_file():
            folder = own
        else:
            article = "an" if self.what[0] in "aeiou" else "a"
            raise ModelError(
                f"{self.method} needs {article} {self.what} trained for {name}, and there is none.",
                hint=self.hint,
            )
        network = self.load(folder)
        other = backbone and backbone.fingerprint and network.fingerprint
        if network.shape["width"] != width or (
            other and backbone and network.fingerprint != backbone.fingerprint
        ):
            raise ModelError(
                f"This {self.what} was trained for {network.backbone or 'another model'}, "
                f"not for {name}.",
                path=folder,
                hint=self.hint,
            )
        if (
            given is not None
            and network.training.get("decoder") == "trained"
            and not _is_own(folder, backbone)
        ):
            raise ModelError(
                f"This {self.what} was trained together with a decoder, and is of use to that "
                "alone.",
                path=given,
                hint=f"Ask the model that it was trained with: --model {folder.parent}",
            )
        return network


def _is_own(folder: Path, backbone: Backbone | None) -> bool:
    """Return whether a network lies inside the folder of the model."""
    if backbone is None or backbone.folder is None:
        return False
    return folder.resolve().parent == backbone.folder.resolve()


def _sizes(kept: Any) -> dict[str, Any]:
    """Return the sizes of a network: numbers and lists of numbers, as a JSON file has them."""
    if not isinstance(kept, dict):
        raise ValueError(f"its sizes are {kept!r}")
    found: dict[str, Any] = {}
    for name, value in kept.items():
        numbers = value if isinstance(value, list) else [value]
        if not all(isinstance(one, (int, float)) for one in numbers):
            raise ValueError(f"{name} is {value!r}")
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


@lru_cache(maxsize=4)
def _load(kind: Kind, folder: Path, changed: tuple[int, ...]) -> Network:
    """Read a network; `changed` makes a file that was replaced a new one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        settings = json.loads((folder / kind.settings).read_text(encoding="utf-8"))
        if settings["schema"] != kind.schema:
            raise ValueError(f"it is a {settings['schema']}")
        shape = _sizes(settings["shape"])
        if "width" not in shape:
            raise ValueError("its sizes have no width")
        with torch.device("meta"):  # nothing is drawn for weights that are read next
            module = kind.make(shape)
        state = {name: v.float() for name, v in load_file(folder / kind.weights).items()}
        module.load_state_dict(state, assign=True)
        named = settings.get("backbone"), settings.get("fingerprint")
        training = dict(settings.get("training") or {})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"This {kind.what} is damaged ({' '.join(str(error).split())[:200]}).",
            path=folder,
            hint=kind.hint,
        ) from error
    return Network(module.eval().requires_grad_(False), shape, *named, training)
