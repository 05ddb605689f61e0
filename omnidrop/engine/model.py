"""A loaded model, which opens clips.

model = load("demo")
with model.open("clip.mp4") as clip:
    print(clip.ask("What instrument plays first?").text)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from omnidrop.clip.options import ClipOptions
from omnidrop.engine.captured import Steps
from omnidrop.engine.default import method_of
from omnidrop.engine.encode import Features, decodes_in_parallel
from omnidrop.engine.prefill import backbone_of
from omnidrop.engine.session import Session
from omnidrop.errors import ModelError, UsageError
from omnidrop.evidence import FILE, EvidenceReading, read_reading
from omnidrop.models.adapter import Adapter, ModelInfo
from omnidrop.models.loading import load_adapter
from omnidrop.options import LoadOptions
from omnidrop.pruning.method import Method
from omnidrop.recommended import Recommended
from omnidrop.stages import Progress

if TYPE_CHECKING:
    from omnidrop.clip.clip import Clip
    from omnidrop.clip.read_clip import ReadClip


def load(
    model: str | LoadOptions | None = None,
    *,
    progress: Progress | None = None,
    **settings: object,
) -> Model:
    """Load a model once, for any number of clips.

    Parameters
    ----------
    model : str or LoadOptions, optional
        A folder, a hub name, an alias ("3b", "7b", "demo") or complete options. None takes a
        cached model of a known family, else the demo model.
    progress : callable, optional
        Called with (stage, done, total) in bytes while a model is downloaded.
    **settings
        Fields of `LoadOptions`: device, dtype, quantize, attention, offline, positions.

    Raises
    ------
    ModelError
        If it cannot be found, is incomplete, or this machine cannot run it.
    MemoryShortError
        If the weights would not fit.
    UsageError
        If a setting is unknown.
    """
    if isinstance(model, LoadOptions):
        options = replace(model, **settings) if settings else model  # type: ignore[arg-type]
    else:
        try:
            options = LoadOptions(model=model, **settings)  # type: ignore[arg-type]
        except TypeError as error:
            known = ", ".join(LoadOptions.__dataclass_fields__)
            raise UsageError(f"{error}.", hint=f"load() takes: {known}.") from None
    adapter = load_adapter(options, progress)
    reading = read_reading(adapter.folder / FILE) if adapter.folder is not None else None
    return Model(adapter, reading)


class Model:
    """A loaded model.

    Parameters
    ----------
    adapter : Adapter
        What the engine needs of it.
    reading : EvidenceReading, optional
        Which attention tells where an answer came from; `load` finds it in the model's folder.

    Raises
    ------
    UsageError
        If the reading is of layers or heads that the model has not.
    """

    def __init__(self, adapter: Adapter, reading: EvidenceReading | None = None) -> None:
        text = adapter.info.text
        self.adapter = adapter
        self.reading = reading or EvidenceReading.usual(text.layers)
        self.reading.check_fits(text.layers, text.heads)
        self._steps = Steps()

    def with_reading(self, reading: EvidenceReading) -> Model:
        """Return this model, loaded once, with another reading of evidence.

        Raises
        ------
        UsageError
            If the reading is of layers or heads that the model has not.
        """
        return Model(self.adapter, reading)

    @property
    def info(self) -> ModelInfo:
        """Name, family, shapes, dtype and device."""
        return self.adapter.info

    @property
    def recommended(self) -> Recommended:
        """The method and budget of questions that name none; may be set to another."""
        return self.adapter.recommended

    @recommended.setter
    def recommended(self, value: Recommended) -> None:
        self.adapter.recommended = value

    @property
    def warm(self) -> bool:
        """Whether it was loaded before the one who asks now came; in every Trace."""
        return self.adapter.warm

    @warm.setter
    def warm(self, value: bool) -> None:
        self.adapter.warm = value

    def method(self, budget: float | None = None) -> Method:
        """Return the recommended method, at its own budget or another.

        Parameters
        ----------
        budget : float, optional
            Share of audio and video tokens kept, mean over the layers.

        Raises
        ------
        UsageError
            If the budget is not valid.
        """
        return method_of(self.recommended, budget)

    def lacks(self, method: Method) -> ModelError | None:
        """Return why a method cannot run with this model for want of a training, if it cannot."""
        try:
            method.check_model(backbone_of(self.adapter), self.info.text.hidden)
        except ModelError as problem:
            return problem
        return None

    def open(
        self,
        source: str | os.PathLike[str] | Clip | ReadClip,
        options: ClipOptions | None = None,
        *,
        notices: Sequence[str] = (),
        **settings: object,
    ) -> Session:
        """Open a clip to ask about.

        Parameters
        ----------
        source : path-like, Clip or ReadClip
            A local media file, or a clip of it that `omnidrop.open_clip` opened. The clip is not
            probed again; it may be closed. Of one that was read by another process
            (`omnidrop.clip.read_clip`) nothing is read again, unless other options are given.
        options : ClipOptions, optional
            Span, rates and limits; default those of the clip, or of `ClipOptions`.
        notices : sequence of str
            More notices for every answer's Trace, such as how the sampling was chosen.
        **settings
            Fields of `ClipOptions`: start, end, fps, max_frames, max_pixels, audio, …

        Raises
        ------
        MediaError
            If it cannot be read.
        UsageError
            If an option is not valid.
        """
        from omnidrop.clip.clip import Clip, open_clip
        from omnidrop.clip.read_clip import ReadClip

        spec = self.adapter.media_spec
        if isinstance(source, ReadClip):
            source = source.opened(spec)
        base = options or (source.options if isinstance(source, Clip) else ClipOptions())
        try:
            chosen = replace(base, **settings)  # type: ignore[arg-type]
        except TypeError as error:
            known = ", ".join(ClipOptions.__dataclass_fields__)
            raise UsageError(f"{error}.", hint=f"open() takes: {known}.") from None
        if isinstance(source, Clip) and source.is_read_ahead and source.options == chosen:
            clip = source  # of `prepare`, or of another process
        elif isinstance(source, Clip):
            clip = source.replanned(chosen, spec)
        else:
            clip = open_clip(source, chosen, spec)
        return Session(
            self.adapter, clip=clip, notices=notices, steps=self._steps, reading=self.reading
        )

    def prepare(
        self, source: str | os.PathLike[str] | ReadClip, options: ClipOptions | None = None
    ) -> Clip:
        """Open a file for this model, to be handed to `open` later; no session is made yet.

        Where the machine has something left for it, decoding begins too: beside a model on a GPU,
        and beside one on a CPU that leaves cores idle. `open` takes the clip over, and closes it
        with its session. A clip that was read by another process is opened as it is.

        Parameters
        ----------
        source : path-like or ReadClip
        options : ClipOptions, optional

        Raises
        ------
        MediaError, UsageError
            As `open`.
        """
        from omnidrop.clip.clip import open_clip
        from omnidrop.clip.read_clip import ReadClip

        spec = self.adapter.media_spec
        if isinstance(source, ReadClip):
            clip = source.opened(spec)
            if options in (None, clip.options):
                return clip
            clip = clip.replanned(options)
        else:
            clip = open_clip(source, options or ClipOptions(), spec)
        if decodes_in_parallel(self.adapter):
            clip.read_ahead()
        return clip

    def features(self, features: Features) -> Session:
        """Open precomputed features instead of a file; no media library is needed."""
        return Session(self.adapter, features=features, steps=self._steps, reading=self.reading)
