"""The contract of a model family: names, sizes, prompt, and how a checkpoint is loaded.

A family is one instance of a `Family`, found by the `model_type` of a checkpoint's config. Built-in
families are listed in `omnidrop.models.FAMILIES`; another package adds its own by an entry point in
the group `omnidrop.families` that names the instance:

    [project.entry-points."omnidrop.families"]
    made-up = "my_package.made_up:FAMILY"

`docs/add-a-model.md` walks through `omnidrop.testing.made_up_family`, a small complete one. Names
and sizes are available without importing transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from omnidrop.errors import ModelError
from omnidrop.recommended import SAFE, Recommended

if TYPE_CHECKING:
    import torch

    from omnidrop.clip.specs import AudioSpec, VideoSpec
    from omnidrop.models.adapter import Adapter, TextCodec
    from omnidrop.shapes import Shapes
    from omnidrop.tokens import ClipTokens, Media, Piece

#: Entry points of families in other packages.
GROUP = "omnidrop.families"

#: In `Family.recommended`: the models that are not listed by name.
OTHERS = "*"


class Template(Protocol):
    """What is specific to a family in a prompt: chat, order, positions, audio tokens.

    Attributes
    ----------
    system : str or None
        Default system prompt; None for a family that has no system turn by default.
    chunk_seconds : float
        Seconds in a temporal chunk of the clip, the unit of reports and of most methods.
    positions_per_second : float
        Temporal positions per second of clip.
    mel_per_token : Fraction
        Log-mel frames that one audio token covers, on average.
    max_positions : int
        Positions the model was trained on.
    position_dtype : torch.dtype
        Dtype of `ClipTokens.positions`: int64, or float32 if time is not rounded.
    """

    @property
    def system(self) -> str | None: ...
    @property
    def chunk_seconds(self) -> float: ...
    @property
    def positions_per_second(self) -> float: ...
    @property
    def mel_per_token(self) -> Fraction: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def position_dtype(self) -> torch.dtype: ...

    def chat(
        self, question: str, system: str | None, *, media: bool
    ) -> tuple[list[Piece], list[Piece]]:
        """Write the chat around the clip, up to where the answer starts.

        Parameters
        ----------
        question : str
            The user's words.
        system : str or None
            System prompt; the family's own if None.
        media : bool
            Whether a clip stands between the two parts.

        Returns
        -------
        before, after : list of int, str or Asked
            Special ids and text; the question is an `Asked`.
        """
        ...

    def follow_up(self, question: str) -> list[Piece]:
        """Write another turn: end of the answer, question, start of the next answer."""
        ...

    def clip(self, media: Media, start: int) -> ClipTokens:
        """Lay out a clip: markers and placeholders in order, with their kinds and positions.

        Parameters
        ----------
        media : Media
            Sizes of the clip's video and audio; not both absent.
        start : int
            Position of the clip's first token: the number of tokens before it.
        """
        ...

    def audio_tokens(self, mel_frames: int) -> int:
        """Return the number of tokens that the audio encoder makes of `mel_frames` frames."""
        ...

    def next_position(self, positions: torch.Tensor) -> int | float:
        """Return the position of the first generated token, given the prompt's, (3, N)."""
        ...


@dataclass(frozen=True)
class LoadRequest:
    """How to load a checkpoint, with all defaults resolved.

    Attributes
    ----------
    name : str
        Name of the model in reports.
    folder : Path
    config : mapping
        The checkpoint's config.json.
    demo : bool
        True for the small model that ships with the package.
    device : torch.device
    dtype : torch.dtype
    attention : str
        Transformers' name: "sdpa", "flash_attention_2" or "eager".
    quantize : str or None
        "4bit", "8bit" or None.
    parameters : int
        Parameters in the files, unused parts left out.
    positions : str or None
        One of the family's conventions of positions; None if it has only one.
    stored : torch.dtype or None
        On a CPU: the dtype in which weights stay mapped from the files, widened to `dtype` or
        quantised afterwards (`omnidrop.models.mapped`, `omnidrop.models.packed`). None to convert
        all of them to `dtype` when they are loaded.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    demo: bool
    device: torch.device
    dtype: torch.dtype
    attention: str
    quantize: str | None
    parameters: int
    positions: str | None = None
    stored: torch.dtype | None = None


class Family(Protocol):
    """One family of models.

    Attributes
    ----------
    name : str
        Display name, like "Made-up-Omni".
    model_types : sequence of str
        Values of `model_type` in config.json that belong to it.
    aliases : mapping of str to str
        Short names and the hub names they stand for, the smallest model first.
    published : mapping of str to Shapes
        Sizes by hub name, so that an estimate needs no files.
    downloads : mapping of str to int
        Bytes of the files on the hub by hub name, about; may be empty.
    unused_weights : sequence of str
        Prefixes of the weights that are not loaded.
    conventions : sequence of str
        Names of the ways to count positions, the default first; empty if there is only one.
    recommended : mapping of str to Recommended
        Method and budget of questions that name none, by hub name; under "*" those of the family's
        other models. Of a model that is not listed it is `omnidrop.recommended.SAFE`.
    """

    @property
    def name(self) -> str: ...
    @property
    def model_types(self) -> Sequence[str]: ...
    @property
    def aliases(self) -> Mapping[str, str]: ...
    @property
    def published(self) -> Mapping[str, Shapes]: ...
    @property
    def downloads(self) -> Mapping[str, int]: ...
    @property
    def unused_weights(self) -> Sequence[str]: ...
    @property
    def conventions(self) -> Sequence[str]: ...
    @property
    def recommended(self) -> Mapping[str, Recommended]: ...

    def missing_part(self, config: Mapping[str, Any]) -> str | None:
        """Return the part that a config lacks, or None if it is complete."""
        ...

    def stored_dtype(self, config: Mapping[str, Any]) -> str | None:
        """Return the dtype of the stored weights as the config names it, like "bfloat16"."""
        ...

    def quantised(self, weight: str) -> bool:
        """Return whether 4-bit and 8-bit loading quantise the weight of this name."""
        ...

    def shapes(self, config: Mapping[str, Any]) -> Shapes:
        """Return the sizes that a config states."""
        ...

    def media(
        self, folder: Path | None, config: Mapping[str, Any] | None
    ) -> tuple[VideoSpec, AudioSpec]:
        """Return the encoders' requirements on frames and audio.

        Parameters
        ----------
        folder, config
            Folder and config of a checkpoint; None for the published values.
        """
        ...

    def template(self, config: Mapping[str, Any] | None, codec: TextCodec | None) -> Template:
        """Return the prompt's template.

        Parameters
        ----------
        config, codec
            Config and tokenizer of a checkpoint. Without a codec the ids are made up, which is
            enough to count tokens.
        """
        ...

    def codec(self, folder: Path) -> TextCodec | None:
        """Return the tokenizer without loading the model; None if there is no `tokenizer.json`.

        Raises
        ------
        ModelError
            If the file exists and cannot be read.
        """
        ...

    def write_tiny(self, folder: Path) -> Path:
        """Write a tiny checkpoint with random weights, so that tests need no download.

        Parameters
        ----------
        folder : Path
            Created if it does not exist.

        Returns
        -------
        Path
            The folder.
        """
        ...

    def check(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Check a checkpoint from its config and the headers of its files; no weight is read.

        Before loading, and before estimates. `omnidrop.models.checking` has the checks that most
        families need.

        Raises
        ------
        ModelError
            If weights are missing or have other shapes, the tokenizer has more ids than the
            vocabulary, or values of the config contradict each other. The caller turns any other
            error into one.
        """
        ...

    def load(self, request: LoadRequest) -> Adapter:
        """Load a checkpoint.

        Raises
        ------
        ModelError
            If the files are not a valid model. The caller turns any other error into one.
        """
        ...


_registered: list[Family] = []


def families() -> tuple[Family, ...]:
    """Return all families: built-in, of other packages, and registered by `registered`."""
    return (*_installed(), *_registered)


@cache
def _installed() -> tuple[Family, ...]:
    from omnidrop.models import FAMILIES

    built_in = [import_module(name).FAMILY for name in FAMILIES]
    return (*built_in, *(found.load() for found in entry_points(group=GROUP)))


@contextmanager
def registered(family: Family) -> Iterator[None]:
    """Register a family inside the `with` block, without installing a package; for tests."""
    _registered.append(family)
    try:
        yield
    finally:
        _registered.remove(family)


def family_of(model_type: object) -> Family | None:
    """Return the family that a config's `model_type` belongs to, or None."""
    return next((f for f in families() if model_type in f.model_types), None)


def aliases() -> dict[str, str]:
    """Return the short names of all families and the hub names they stand for."""
    return {alias: name for family in families() for alias, name in family.aliases.items()}


def published(name: str) -> tuple[Family, Shapes] | None:
    """Return the family and sizes of a published model, by its hub name; None if not known."""
    for family in families():
        if name in family.published:
            return family, family.published[name]
    return None


def recommended_for(name: str, family: Family) -> Recommended:
    """Return the method and budget of questions that name none.

    Parameters
    ----------
    name : str
        A hub name, or that of a folder: a folder called like a model is taken for it.
    family : Family
        The model's.
    """
    # A family of another package may be older than this attribute.
    listed: Mapping[str, Recommended] = getattr(family, "recommended", {})
    by_folder = {known.rpartition("/")[2].lower(): found for known, found in listed.items()}
    found = listed.get(name) or by_folder.get(name.lower())
    return found or listed.get(OTHERS, SAFE)


def special_ids(
    codec: TextCodec | None,
    tokens: Mapping[str, str],
    stated: Mapping[str, int],
    name: str,
) -> dict[str, int]:
    """Return the ids of a template's special tokens; none may be missing.

    Parameters
    ----------
    codec : TextCodec or None
        The checkpoint's tokenizer. Without one the ids are made up: an estimate only counts tokens.
    tokens : mapping
        Template field to special token.
    stated : mapping
        Template field to the id in the checkpoint's config, of those tokens that it has ids of.
    name : str
        Name of the model, for errors.

    Raises
    ------
    ModelError
        If the tokenizer lacks tokens, or gives one another id than the config; names them.
    """
    if codec is None:
        return {field: number for number, field in enumerate(tokens)}
    found = {field: codec.id(token) for field, token in tokens.items()}
    ids = {field: number for field, number in found.items() if number is not None}
    problem = None
    if missing := [tokens[field] for field in tokens if field not in ids]:
        problem = f"The tokenizer of {name} has no {' '.join(missing)}."
    elif wrong := [field for field, expected in stated.items() if ids[field] != expected]:
        field = wrong[0]
        problem = (
            f"The tokenizer of {name} gives {tokens[field]} the id {ids[field]}, "
            f"its config {stated[field]}."
        )
    if problem is not None:
        raise ModelError(problem, hint="Use the tokenizer files of the checkpoint itself.")
    return ids
