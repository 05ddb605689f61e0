"""Options shared by the commands, in groups: one frozen dataclass for each.

A group makes the library's value from its fields when it is made itself, so that a value that is
not valid is refused before anything heavy is imported or a model is loaded. Defaults that the
library has are the library's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from omnidrop.clip.options import ClipOptions
from omnidrop.errors import MediaError, UsageError
from omnidrop.files import check_target
from omnidrop.options import GenerateOptions, LoadOptions
from omnidrop_cli.options.groups import build, option
from omnidrop_cli.options.outside import Anyway
from omnidrop_cli.options.parsing import parse_choices, parse_save, parse_share, parse_time

Json = Annotated[bool, option("--json", panel="Output", help="One JSON document on stdout.")]
Quiet = Annotated[bool, option("--quiet", panel="Output", help="No progress.")]
Debug = Annotated[
    bool, option("--debug", panel="Output", help="Show tracebacks and library warnings.")
]
NoServe = Annotated[
    bool,
    option(
        "--no-serve",
        panel="Warm model",
        help="Load the model in this process, even if omnidrop serve has it loaded.",
    ),
]
Recursive = Annotated[
    bool,
    option(
        "--recursive",
        "-r",
        panel="Clip",
        help="Of a folder, take the clips in the folders below it too.",
    ),
]


class Report(StrEnum):
    """How much of a report goes to stderr."""

    none = "none"
    brief = "brief"
    full = "full"
    settings = "settings"


@dataclass(frozen=True)
class ModelFlags:
    """Which model, and how it is loaded."""

    model: Annotated[
        str | None,
        option(
            "--model",
            "-m",
            panel="Model",
            metavar="NAME",
            help="Hub name, folder or alias; see `omnidrop models`.",
        ),
    ] = LoadOptions.model
    device: Annotated[
        str,
        option("--device", panel="Model", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps."),
    ] = LoadOptions.device
    dtype: Annotated[
        str,
        option(
            "--dtype", panel="Model", metavar="NAME", help="auto, float32, bfloat16 or float16."
        ),
    ] = LoadOptions.dtype
    four_bit: Annotated[
        bool, option("--4bit", panel="Model", help="Quantise the language model to 4 bits.")
    ] = False
    eight_bit: Annotated[
        bool, option("--8bit", panel="Model", help="Quantise the language model to 8 bits.")
    ] = False
    attention: Annotated[
        str,
        option(
            "--attn",
            panel="Model",
            metavar="NAME",
            help="sdpa, or flash where flash-attention is installed.",
        ),
    ] = LoadOptions.attention
    offline: Annotated[
        bool, option("--offline", panel="Model", help="Use local files only; never the network.")
    ] = LoadOptions.offline
    positions: Annotated[
        str | None,
        option(
            "--positions",
            panel="Model",
            metavar="NAME",
            help="How positions are counted, for models with two ways: published or trained.",
        ),
    ] = LoadOptions.positions

    def __post_init__(self) -> None:
        if self.four_bit and self.eight_bit:
            raise UsageError("--4bit and --8bit exclude each other.", hint="Give one of them.")
        self.load_options()

    def load_options(self) -> LoadOptions:
        """Return how the library loads the model."""
        return build(
            LoadOptions,
            ModelFlags,
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            quantize="4bit" if self.four_bit else "8bit" if self.eight_bit else None,
            attention=self.attention,
            offline=self.offline,
            positions=self.positions,
        )


@dataclass(frozen=True)
class SpanFlags:
    """Which part of the clip."""

    start: Annotated[
        float | None,
        option(
            "--start",
            panel="Clip",
            metavar="TIME",
            parser=parse_time,
            help="Start of the part to use: 75, 1:15 or 0:01:15.",
        ),
    ] = None
    end: Annotated[
        float | None,
        option("--end", panel="Clip", metavar="TIME", parser=parse_time, help="End of that part."),
    ] = None

    def __post_init__(self) -> None:
        build(ClipOptions, SpanFlags, start=self.start, end=self.end)


@dataclass(frozen=True)
class ReadFlags:
    """How the clip is sampled."""

    fps: Annotated[
        float | None,
        option(
            "--fps",
            panel="Clip",
            metavar="N",
            help="Frames sampled per second. Default: the model's, usually 2.",
        ),
    ] = ClipOptions.fps
    max_frames: Annotated[
        int | None,
        option(
            "--max-frames",
            panel="Clip",
            metavar="N",
            help="Most frames sampled. Default: the model's, usually 768.",
        ),
    ] = ClipOptions.max_frames
    max_pixels: Annotated[
        int | None,
        option(
            "--max-pixels",
            panel="Clip",
            metavar="N",
            help="Most pixels per frame; fewer take less memory and time. Default: the model's.",
        ),
    ] = ClipOptions.max_pixels
    still: Annotated[
        int,
        option(
            "--still",
            panel="Clip",
            metavar="LEVELS",
            help=f"Encode frames once that differ by at most this many grey levels in every pixel "
            f"({ClipOptions.still}); 16 suits slides.",
        ),
    ] = ClipOptions.still
    square_pixels: Annotated[
        bool,
        option(
            "--square-pixels",
            panel="Clip",
            help="Take pixels as square, as the model's own reader does, whatever the clip says.",
        ),
    ] = ClipOptions.square_pixels
    no_audio: Annotated[bool, option("--no-audio", panel="Clip", help="Ignore the audio.")] = False
    no_video: Annotated[bool, option("--no-video", panel="Clip", help="Ignore the video.")] = False
    audio_file: Annotated[
        Path | None,
        option("--audio", panel="Clip", metavar="FILE", help="Take the audio from this file."),
    ] = None
    video_track: Annotated[
        int | None,
        option(
            "--video-track",
            panel="Clip",
            metavar="N",
            help="Which video track of the clip, from 0.",
        ),
    ] = None
    audio_track: Annotated[
        int | None,
        option(
            "--audio-track",
            panel="Clip",
            metavar="N",
            help="Which audio track of the clip, from 0.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.no_audio and self.no_video:
            raise UsageError(
                "--no-audio and --no-video together leave nothing of the clip.",
                hint="Give one of them.",
            )
        if self.no_audio and (self.audio_file is not None or self.audio_track is not None):
            raise UsageError("--no-audio excludes --audio and --audio-track.", hint="Drop one.")
        if self.no_video and self.video_track is not None:
            raise UsageError("--no-video excludes --video-track.", hint="Drop one.")
        if self.audio_file is not None and not self.audio_file.is_file():
            raise MediaError(
                "There is no such file.", path=self.audio_file, hint="Check the path of --audio."
            )
        self.clip_options()

    def clip_options(self, span: SpanFlags | None = None) -> ClipOptions:
        """Return what the library takes of a clip: this sampling, of a span or the whole."""
        return build(
            ClipOptions,
            ReadFlags,
            start=span.start if span is not None else None,
            end=span.end if span is not None else None,
            fps=self.fps,
            max_frames=self.max_frames,
            max_pixels=self.max_pixels,
            still=self.still,
            square_pixels=self.square_pixels,
            video=not self.no_video,
            audio=not self.no_audio,
            audio_file=self.audio_file,
            video_track=self.video_track,
            audio_track=self.audio_track,
        )


@dataclass(frozen=True)
class AnswerFlags:
    """How the answer is made."""

    choices: Annotated[
        str | None,
        option(
            "--choices",
            panel="Answer",
            metavar="A,B,C",
            help="Pick one of these; probabilities in the report. Quote one with a comma.",
        ),
    ] = None
    system: Annotated[
        str | None,
        option(
            "--system",
            panel="Answer",
            metavar="TEXT",
            help="System prompt instead of the model's own.",
        ),
    ] = None
    max_new_tokens: Annotated[
        int,
        option(
            "--max-new-tokens",
            panel="Answer",
            metavar="N",
            help=f"Longest answer ({GenerateOptions.max_new_tokens}).",
        ),
    ] = GenerateOptions.max_new_tokens
    temperature: Annotated[
        float,
        option(
            "--temperature",
            panel="Answer",
            metavar="T",
            help=f"0 decodes greedily, more samples ({GenerateOptions.temperature:g}).",
        ),
    ] = GenerateOptions.temperature
    top_p: Annotated[
        float,
        option(
            "--top-p",
            panel="Answer",
            metavar="P",
            parser=parse_share,
            help="Sample from the likeliest tokens that together have this probability "
            f"({GenerateOptions.top_p:g}).",
        ),
    ] = GenerateOptions.top_p
    seed: Annotated[
        int,
        option(
            "--seed",
            panel="Answer",
            metavar="N",
            help=f"Seed of everything random ({GenerateOptions.seed}).",
        ),
    ] = GenerateOptions.seed
    anyway: Anyway = False

    def __post_init__(self) -> None:
        if self.choices is not None:
            parse_choices(self.choices)
        self.generate()

    def generate(self) -> GenerateOptions:
        """Return how the library makes the answer."""
        return build(
            GenerateOptions,
            AnswerFlags,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
        )


@dataclass(frozen=True)
class OutputFlags:
    """Where the answer and the report go."""

    json: Json = False
    jsonl: Annotated[
        bool, option("--jsonl", panel="Output", help="One line of JSON per answer on stdout.")
    ] = False
    report: Annotated[
        Report | None,
        option(
            "--report",
            panel="Output",
            metavar="LEVEL",
            help="Report on stderr: none, brief, full, or settings, which is full with every "
            "setting. brief on a terminal; none where answers go to a pipe or are JSON.",
        ),
    ] = None
    save: Annotated[
        list[Path] | None,
        option(
            "--save",
            panel="Output",
            metavar="FILE",
            parser=parse_save,
            repeatable=True,
            help="Write answers and full report to FILE.json, .html, .svg or .txt; repeatable.",
        ),
    ] = None
    force: Annotated[bool, option("--force", panel="Output", help="Let --save replace files.")] = (
        False
    )
    quiet: Annotated[
        bool, option("--quiet", panel="Output", help="No report, progress or notices.")
    ] = False
    debug: Debug = False

    def __post_init__(self) -> None:
        if self.json and self.jsonl:
            raise UsageError("--json and --jsonl exclude each other.", hint="Give one of them.")
        for target in self.targets:
            check_target(target, self.force)

    @property
    def targets(self) -> tuple[Path, ...]:
        """Return the files to write, each once."""
        return tuple(dict.fromkeys(self.save or ()))
