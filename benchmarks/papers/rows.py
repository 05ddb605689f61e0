"""The values that a paper's table is made of: sets, figures, rows with their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from omnidrop.evaluation.runner import UNPRUNED
from omnidrop.pruning.method import Method
from omnidrop.pruning.registry import get_method, get_preset


@dataclass(frozen=True)
class Asked:
    """How a paper put the questions of one set; None where the model's own applies.

    Attributes
    ----------
    fps : float or None
        Frames sampled per second.
    max_frames, max_pixels : int or None
        Most frames of a clip, and most pixels of a frame.
    system : str or None
        System prompt.
    max_new_tokens : int or None
        Longest reply.
    """

    fps: float | None = None
    max_frames: int | None = None
    max_pixels: int | None = None
    system: str | None = None
    max_new_tokens: int | None = None

    def words(self) -> list[str]:
        """Return the options of `omnidrop eval` that say so."""
        named = {
            "--fps": None if self.fps is None else f"{self.fps:g}",
            "--max-frames": self.max_frames,
            "--max-pixels": self.max_pixels,
            "--system": self.system,
            "--max-new-tokens": self.max_new_tokens,
        }
        return [word for k, v in named.items() if v is not None for word in (k, str(v))]


@dataclass(frozen=True)
class Column:
    """A question set of a table.

    Attributes
    ----------
    set : str
        Its format, as `omnidrop eval` names it.
    title : str
    asked : Asked
    """

    set: str
    title: str
    asked: Asked = field(default_factory=Asked)


@dataclass(frozen=True)
class Figures:
    """What a paper prints in one row.

    Attributes
    ----------
    right : mapping of str to float
        Set → right answers, in percent.
    mean : float or None
        Mean of `right` over the table's sets.
    of_full : float or None
        That mean in percent of the unpruned model's.
    flops : float or None
        FLOPs of the LLM prefill as a share of the unpruned model's.
    """

    right: Mapping[str, float] = field(default_factory=dict)
    mean: float | None = None
    of_full: float | None = None
    flops: float | None = None


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes
    ----------
    key : str
        Label of the row in the records; "unpruned" is the control that always runs.
    title : str
        As the paper calls it.
    published : Figures
    preset : str or None
        The method's preset with the paper's settings.
    method : str or None
        The method, where no preset has the settings.
    fields : mapping
        Settings besides those of the preset.
    differs : str
        How what runs differs from what is published; empty if it does not.
    left_out : str
        Why the row cannot run; empty if it can.
    """

    key: str
    title: str
    published: Figures = field(default_factory=Figures)
    preset: str | None = None
    method: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    differs: str = ""
    left_out: str = ""

    @property
    def full(self) -> bool:
        """Whether this is the unpruned control."""
        return self.key == UNPRUNED

    @property
    def runs(self) -> bool:
        """Whether the row is measured."""
        return not self.left_out

    def made(self, predictor: str | None = None) -> Method:
        """Return the method with the row's settings.

        Parameters
        ----------
        predictor : str, optional
            Folder of the audio-to-visual predictor, for methods that have one.
        """
        if self.full:
            return Method()
        if self.preset is not None:
            found = replace(get_preset(self.preset), **self.fields)
        else:
            found = get_method(self.method or "", **self.fields)
        if predictor is not None and "predictor" in found.settings():
            found = replace(found, predictor=predictor)  # type: ignore[call-arg]
        return found


@dataclass(frozen=True)
class Table:
    """One table of a paper on one model.

    Attributes
    ----------
    name : str
    title, paper : str
        The paper's method, and its address.
    model : str
        Alias of the checkpoint.
    columns : tuple of Column
    rows : tuple of Row
        The unpruned control first.
    differs : tuple of str
        How the measurement differs from the paper's, in every row.
    unknown : tuple of str
        What no source at hand says.
    sources : tuple of str
        Where settings and figures come from.
    """

    name: str
    title: str
    paper: str
    model: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    differs: tuple[str, ...]
    unknown: tuple[str, ...]
    sources: tuple[str, ...]

    def column(self, name: str) -> Column:
        """Return a set's column."""
        return next(column for column in self.columns if column.set == name)
