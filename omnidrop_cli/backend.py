"""The one seam between the commands and the library.

Commands call the library through these functions only, so that tests can put a fake model behind
every command, and so that torch is imported when a command needs it and not before.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.errors import MediaError, UsageError
from omnidrop_cli.options.common import (
    AUTO,
    DEFAULT_BUDGET,
    DEFAULT_MASS,
    AnswerFlags,
    DropFlags,
    ModelFlags,
    ReadFlags,
    SpanFlags,
)
from omnidrop_cli.options.limits import FitFlags
from omnidrop_cli.options.parsing import parse_pairs

if TYPE_CHECKING:
    from omnidrop import Answer, Method, Session
    from omnidrop.profiling.estimate import Estimate
    from omnidrop.profiling.result import Profile, RunProfile
    from omnidrop.profiling.survivors import Replay
    from omnidrop_cli.options.profile import RoundFlags


def hush(debug: bool) -> None:
    """Keep the libraries' own warnings off stderr; notices worth reading are in the Trace."""
    if not debug:
        warnings.simplefilter("ignore")
        for name in ("bitsandbytes", "transformers", "accelerate", "torch"):
            logging.getLogger(name).setLevel(logging.ERROR + 1)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def hide_downloads() -> None:
    """Show no download bars: stderr is not a terminal, or quiet was asked for."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def check_clip(path: Path, span: SpanFlags, read: ReadFlags) -> None:
    """Raise what is wrong with a clip before a model is loaded for it.

    Raises
    ------
    MediaError
        If there is no such file, or it is no clip that can be read.
    UsageError
        If the options do not fit it, such as a start after its end.
    """
    check_file(path)
    with open_clip(path, span, read):
        pass


def check_file(path: Path) -> None:
    """Raise MediaError if there is nothing at `path` that could be a clip."""
    if not os.path.exists(path):  # unlike Path.exists, also False for a name too long to be one
        raise MediaError("There is no such file.", path=path, hint="Check the path.")
    if os.path.isdir(path):
        raise MediaError("This is a folder.", path=path, hint="Name the clips in it, like *.mp4.")


def method(flags: DropFlags) -> Method:
    """Return the pruning method that the flags ask for.

    Raises
    ------
    UsageError
        Unknown method, preset or setting, or a value that cannot be meant.
    """
    from omnidrop.pruning.registry import get_method, get_preset

    fields = parse_pairs(flags.pairs)
    if flags.preset_file is not None:
        from omnidrop.pruning.presets import read_preset

        return read_preset(flags.preset_file).at(flags.budget, **fields)
    if flags.preset is not None:
        chosen = get_preset(flags.preset)
        return get_method(chosen.name, **chosen.settings() | fields)
    auto = flags.budget == "auto"
    name = AUTO if auto else flags.method or "omnidrop"
    if auto or flags.keep_mass is not None:
        fields.setdefault("keep_mass", DEFAULT_MASS)
        if flags.keep_mass is not None:
            fields["keep_mass"] = flags.keep_mass
    if name == "none":
        if flags.budget not in (None, 1.0):
            raise UsageError(
                "--method none keeps every token.", hint="Drop --budget or choose another method."
            )
    else:
        fields["budget"] = DEFAULT_BUDGET if flags.budget in (None, "auto") else flags.budget
    return get_method(name, **fields)


def load(flags: ModelFlags) -> Any:
    """Load a model; see `omnidrop.load`."""
    import omnidrop

    return omnidrop.load(load_options(flags))


def load_options(flags: ModelFlags) -> Any:
    """Return the library's LoadOptions."""
    import omnidrop

    return omnidrop.LoadOptions(
        model=flags.model,
        device=flags.device,
        dtype=flags.dtype,
        quantize=flags.quantize,
        attention=flags.attention,
        offline=flags.offline,
    )


def clip_options(span: SpanFlags, read: ReadFlags) -> Any:
    """Return the library's ClipOptions; what was not asked for keeps the library's default."""
    import omnidrop

    asked: dict[str, Any] = {
        "start": span.start,
        "end": span.end,
        "fps": read.fps,
        "max_frames": read.max_frames,
        "max_pixels": read.max_pixels,
        "still": read.still,
        "audio_file": read.audio_file,
        "audio_track": read.audio_track,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    return omnidrop.ClipOptions(video=not read.no_video, audio=not read.no_audio, **given)


def open_session(model: Any, path: Path, span: SpanFlags, read: ReadFlags) -> Session:
    """Open a clip with a loaded model."""
    return model.open(path, clip_options(span, read))


def ask(
    session: Session,
    question: str,
    *,
    method: Method,
    choices: tuple[str, ...],
    flags: AnswerFlags,
    on_text: Callable[[str], None] | None,
    progress: Callable[[str, float, float | None], None] | None,
    fit: FitFlags | None = None,
) -> Answer:
    """Ask one question; see `omnidrop.Session.ask`."""
    import omnidrop

    return session.ask(
        question,
        method=method,
        choices=choices,
        options=omnidrop.GenerateOptions(
            max_new_tokens=flags.max_new_tokens,
            temperature=flags.temperature,
            top_p=flags.top_p,
            seed=flags.seed,
        ),
        system=flags.system,
        on_text=on_text,
        progress=progress,
        limits=limits(fit) if fit else None,
    )


def limits(flags: FitFlags) -> Any:
    """Return the library's Limits."""
    import omnidrop

    return omnidrop.Limits(latency=flags.fit_latency, memory=flags.fit_memory)


def warm_up(model: Any, method: Method, fit: FitFlags) -> None:
    """Measure how fast this machine is, where a limit asks for it."""
    if fit.fit_latency is not None:
        from omnidrop.profiling.prefill_speed import prefill_speed

        prefill_speed(model.adapter, method)


def fit_sampling(
    model: Any,
    path: Path,
    question: str,
    method: Method,
    *,
    span: SpanFlags,
    read: ReadFlags,
    fit: FitFlags,
    system: str | None,
) -> tuple[ReadFlags, str | None]:
    """Return how to sample a clip within limits; see `omnidrop.profiling.fit.fit_sampling`."""
    if not (fit.fit_pixels or fit.fit_fps):
        return read, None
    from omnidrop.profiling.fit import fit_sampling as choose

    found, said = choose(
        model.adapter,
        path,
        question,
        method,
        limits(fit),
        clip=clip_options(span, read),
        pixels=fit.fit_pixels,
        fps=fit.fit_fps,
        system=system,
    )
    if said is None:
        return read, None
    return replace(read, max_pixels=found.max_pixels, fps=found.fps), said


def open_clip(path: Path, span: SpanFlags, read: ReadFlags) -> Any:
    """Read a clip without a model; see `omnidrop.open_clip`."""
    import omnidrop

    return omnidrop.open_clip(path, clip_options(span, read))


def export_chunks(clip: Any, folder: Path) -> Any:
    """Write a clip's chunks as PNG and WAV; see `omnidrop.clip.export`."""
    from omnidrop.clip.export import export_chunks as export

    return export(clip, folder)


def profile(
    model: Any,
    path: Path,
    question: str,
    methods: list[Method],
    *,
    labels: list[str],
    span: SpanFlags,
    read: ReadFlags,
    rounds: RoundFlags,
    progress: Callable[[str, float, float | None], None] | None,
) -> Profile:
    """Measure the unpruned control and methods; see `omnidrop.profiling.measure.profile`."""
    import omnidrop
    from omnidrop.profiling.measure import profile as measure

    return measure(
        model,
        path,
        question,
        methods,
        labels=labels,
        clip=clip_options(span, read),
        options=omnidrop.GenerateOptions(max_new_tokens=rounds.max_new_tokens, seed=rounds.seed),
        system=rounds.system,
        repeats=rounds.repeats,
        warmup=rounds.warmup,
        progress=progress,
    )


def estimate(
    path: Path,
    question: str,
    methods: list[Method],
    *,
    labels: list[str],
    model: ModelFlags,
    span: SpanFlags,
    read: ReadFlags,
    system: str | None,
    tflops: float | None,
) -> Estimate:
    """Estimate without weights; see `omnidrop.profiling.estimate.estimate`."""
    from omnidrop.profiling.estimate import estimate as reckon

    return reckon(
        path,
        question,
        methods,
        labels=labels,
        model=load_options(model),
        clip=clip_options(span, read),
        system=system,
        tflops=tflops,
    )


def look(
    model: Any, path: Path, run: RunProfile, span: SpanFlags, read: ReadFlags, layer: int | None
) -> Replay:
    """Gather what a run still saw and heard; see `omnidrop.profiling.replay.replay`."""
    from omnidrop.profiling.replay import replay as gather

    return gather(model, path, run, clip=clip_options(span, read), layer=layer)


def overlay(
    model: Any,
    path: Path,
    run: RunProfile,
    target: Path,
    *,
    span: SpanFlags,
    read: ReadFlags,
    layer: int | None,
    force: bool,
) -> None:
    """Write a clip with what was dropped dimmed; see `omnidrop.profiling.replay.overlay`."""
    from omnidrop.profiling.replay import overlay as write

    write(model, path, run, target, clip=clip_options(span, read), layer=layer, force=force)


def known_models() -> list[Any]:
    """Return the models that have a name of their own; see `omnidrop.models.loading`."""
    from omnidrop.models.loading import known_models as known

    return list(known())


def known_methods() -> dict[str, Any]:
    """Return the method classes by name."""
    from omnidrop.pruning.registry import methods

    return methods()


def known_presets() -> dict[str, Any]:
    """Return the published settings of methods by name."""
    from omnidrop.pruning.registry import presets

    return presets()


def describe_method(kind: Any) -> str:
    """Return a method in one sentence."""
    from omnidrop.pruning.registry import describe

    return describe(kind)
