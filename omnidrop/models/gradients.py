"""A decoder that gradients flow through, for training what stands before it, or the decoder itself.

The engine's layer loop computes without gradients, and overwrites states to save memory. Training
runs the modules of transformers as they are, one clip at a time and without a KV cache. Positions
are given row by row, so tokens may be missing between them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from omnidrop.errors import ModelError
from omnidrop.files import to_json
from omnidrop.models.attention import causal_mask
from omnidrop.models.family import family_of
from omnidrop.models.locations import INDEX, read_json, shards

#: Rows from which a layer's states are computed again in the backward pass, and not held.
RECOMPUTED_FROM = 1024

#: A weight of a decoder layer, under the names of the hub and of transformers.
_LAYER = re.compile(r"(?:^|\.)(layers\.\d+\..+)$")
#: Files that say what was measured of the weights as they were.
_MEASURED = ("calibration.json", "evidence.json")
_ENCODERS = re.compile(r"(^|\.)(audio|audio_tower|visual)\.")


class Decoder(ABC):
    """A model's decoder, computed so that gradients flow from its logits to its input."""

    @abstractmethod
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids, (n,) int64 → (n, D), without gradients."""

    @abstractmethod
    def logits(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        rows: int,
        planes: Sequence[torch.Tensor] = (),
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run all layers.

        Parameters
        ----------
        hidden : Tensor, (n, D)
            Embeddings of a whole sequence.
        positions : Tensor, (3, n) int64 or float32
        rows : int
            Of how many rows, the last ones, logits are wanted.
        planes : sequence of Tensor, (m, D) each
            Added to the states of the tokens at `places` after layers 0, 1, …
        places : Tensor, (m,) int64, optional

        Returns
        -------
        Tensor, (rows, V) float32
        """

    @abstractmethod
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return the weights of the decoder's layers by name; embeddings and head are not theirs.

        Raises
        ------
        ModelError
            If they cannot be trained as they are loaded.
        """

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write a checkpoint with the layers as they are now and everything else as it was.

        What was measured of the model as it was, such as its calibration, is left out.

        Parameters
        ----------
        folder : Path
            Created if it does not exist.
        """


class LayersDecoder(Decoder):
    """The decoder of a thinker of transformers.

    Parameters
    ----------
    text, head : Module
        The text model and the head.
    implementation : str
        Of attention, as in the module's config.
    folder : Path or None
        The checkpoint's folder.
    name : str
        Of the model, for errors.

    Raises
    ------
    ModelError
        If its weights are loaded in a form that gradients do not pass.
    """

    def __init__(
        self,
        text: Any,
        head: Any,
        implementation: str,
        *,
        folder: Path | None,
        name: str,
    ) -> None:
        self._text, self._head, self._implementation = text, head, implementation
        self._folder, self._name = folder, name
        weighed = (text.embed_tokens, text.layers, text.norm, head)
        kinds = {type(m).__module__.partition(".")[0] for part in weighed for m in part.modules()}
        if kinds & {"omnidrop", "bitsandbytes"}:
            raise ModelError(
                f"Gradients cannot pass the weights of {name} as they are loaded: they are "
                "quantised, or stay in 16 bits on a CPU that does not compute in them.",
                hint="Add --dtype float32, and leave --4bit and --8bit out.",
            )

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            rows: torch.Tensor = self._text.embed_tokens(ids.to(self._head.weight.device))
        return rows

    def logits(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        rows: int,
        planes: Sequence[torch.Tensor] = (),
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        states = hidden[None]
        with torch.no_grad():
            rotary = self._text.rotary_emb(states, positions.to(states.device)[:, None])
        mask = causal_mask(self._implementation, len(hidden), 0, states)
        again = torch.is_grad_enabled() and len(hidden) >= RECOMPUTED_FROM
        for number, layer in enumerate(self._text.layers):
            if again:
                states = checkpoint(_through, layer, states, mask, rotary, use_reentrant=False)
            else:
                states = _through(layer, states, mask, rotary)
            if number < len(planes) and places is not None:
                states = states.index_add(1, places, planes[number][None])
        out: torch.Tensor = self._head(self._text.norm(states[:, len(hidden) - rows :]))
        return out[0].float()

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        found = {f"layers.{name}": p for name, p in self._text.layers.named_parameters()}
        if any(p.dtype != torch.float32 for p in found.values()):
            raise ModelError(
                f"The decoder of {self._name} is loaded in 16 bits, in which the steps of a "
                "training vanish.",
                hint="Add --dtype float32.",
            )
        self._sources(found)
        return found

    def write(self, folder: Path) -> None:
        from safetensors.torch import save_file

        assert self._folder is not None  # `parameters` found the weights in it
        learned = {f"layers.{name}": p for name, p in self._text.layers.named_parameters()}
        where = self._sources(learned)
        folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            wanted = path.suffix in (".json", ".txt", ".jinja") and path.name not in _MEASURED
            if path.is_file() and wanted and path.name != INDEX:
                (folder / path.name).write_bytes(path.read_bytes())
        index: dict[str, str] = {}
        for path, names in self._files().items():
            tensors = {}
            with _opened(path) as file:
                for name in names:
                    tensor = file.get_tensor(name)
                    if name in where:
                        tensor = learned[where[name]].detach().cpu().to(tensor.dtype).contiguous()
                    tensors[name] = tensor
                    index[name] = path.name
            save_file(tensors, folder / path.name, metadata={"format": "pt"})
        if (self._folder / INDEX).is_file():
            text = to_json({"metadata": {}, "weight_map": index}, indent=2)
            (folder / INDEX).write_text(text + "\n", encoding="utf-8")

    def _files(self) -> dict[Path, list[str]]:
        """Return the names of the weights that are loaded, by file."""
        found: dict[Path, list[str]] = {}
        if self._folder is None:
            return found
        family = family_of(read_json(self._folder / "config.json").get("model_type"))
        unused = tuple(family.unused_weights) if family is not None else ()
        for path in shards(self._folder, unused):
            with _opened(path) as file:
                names = [str(name) for name in file.keys()]  # noqa: SIM118
            found[path] = [name for name in names if not name.startswith(unused)]
        return found

    def _sources(self, learned: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Return which of the checkpoint's weights is which of the learned ones.

        Raises
        ------
        ModelError
            If not each of these is one of those, so that they could not be written again.
        """
        where: dict[str, str] = {}
        for path, names in self._files().items():
            with _opened(path) as file:
                for name in names:
                    matched = _LAYER.search(name)
                    if matched is None or _ENCODERS.search(name) or matched[1] not in learned:
                        continue
                    if tuple(file.get_slice(name).get_shape()) == tuple(learned[matched[1]].shape):
                        where[name] = matched[1]
        if sorted(where.values()) != sorted(learned):
            raise ModelError(
                f"The decoder of {self._name} cannot be trained: its files hold the weights in "
                "another form than that in which they are computed.",
                path=self._folder,
                hint="Train with the decoder frozen.",
            )
        return where


def _opened(path: Path) -> Any:
    from safetensors import safe_open

    return safe_open(path, framework="pt")


def _through(
    layer: Any,
    states: torch.Tensor,
    mask: torch.Tensor | None,
    rotary: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Run a decoder layer of transformers."""
    out = layer(states, attention_mask=mask, position_embeddings=rotary)
    result: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return result


__all__ = ["Decoder", "LayersDecoder"]
