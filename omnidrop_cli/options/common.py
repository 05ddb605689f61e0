"""The options people type, in groups: one frozen dataclass for each, shared by the commands.

What cannot be meant is refused when a group is made, before anything is imported or loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from omnidrop.errors import MediaError, UsageError
from omnidrop_cli.options.groups import lines_of, option
from omnidrop_cli.options.parsing import (
    check_seed,
    parse_budget,
    parse_choices,
    parse_save,
    parse_time,
)

DEFAULT_BUDGET = 0.3

#: What `--budget auto` is, and the share of the question's attention that it keeps.
AUTO, DEFAULT_MASS = "omnidrop-auto", 0.85


class Report(StrEnum):
    """How much of a report goes to stderr."""

    none = "none"
    brief = "brief"
    full = "full"


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
    ] = None
    device: Annotated[
        str,
        option("--device", panel="Model", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps."),
    ] = "auto"
    dtype: Annotated[
        str,
        option(
            "--dtype", panel="Model", metavar="NAME", help="auto, float32, bfloat16 or float16."
        ),
    ] = "auto"
    four_bit: Annotated[
        bool, option("--4bit", panel="Model", help="Language model's weights in 4 bits (NF4).")
    ] = False
    eight_bit: Annotated[
        bool, option("--8bit", panel="Model", help="Language model's weights in 8 bits.")
    ] = False
    attention: Annotated[
        str,
        option(
            "--attn",
            panel="Model",
            metavar="NAME",
            help="sdpa, or flash where flash-attention is installed.",
        ),
    ] = "sdpa"
    offline: Annotated[
        bool, option("--offline", panel="Model", help="Use local files only; never the network.")
    ] = False

    def __post_init__(self) -> None:
        if self.four_bit and self.eight_bit:
            raise UsageError("--4bit and --8bit exclude each other.", hint="Give one of them.")

    @property
    def quantize(self) -> str | None:
        """Return "4bit", "8bit" or None."""
        return "4bit" if self.four_bit else "8bit" if self.eight_bit else None


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
            help="Begin here: 75, 1:15 or 0:01:15.",
        ),
    ] = None
    end: Annotated[
        float | None,
        option("--end", panel="Clip", metavar="TIME", parser=parse_time, help="Stop here."),
    ] = None

    def __post_init__(self) -> None:
        if self.end is not None and self.end <= (self.start or 0.0):
            raise UsageError(
                f"--end {self.end:g} s is not after --start {self.start or 0:g} s.",
                hint="Give an end that is later than the start.",
            )


@dataclass(frozen=True)
class ReadFlags:
    """How the clip is sampled."""

    fps: Annotated[
        float | None,
        option("--fps", panel="Clip", metavar="N", help="Frames per second to look at (2)."),
    ] = None
    max_frames: Annotated[
        int | None,
        option("--max-frames", panel="Clip", metavar="N", help="Most frames to look at (768)."),
    ] = None
    max_pixels: Annotated[
        int | None,
        option(
            "--max-pixels",
            panel="Clip",
            metavar="N",
            help="Most pixels per frame; less takes less memory.",
        ),
    ] = None
    still: Annotated[
        int | None,
        option(
            "--still",
            panel="Clip",
            metavar="LEVELS",
            help="Pictures this alike, in grey levels, are encoded once (0); 16 suits slides.",
        ),
    ] = None
    no_audio: Annotated[bool, option("--no-audio", panel="Clip", help="Ignore the sound.")] = False
    no_video: Annotated[bool, option("--no-video", panel="Clip", help="Ignore the picture.")] = (
        False
    )
    audio_file: Annotated[
        Path | None,
        option("--audio", panel="Clip", metavar="FILE", help="Take the sound from this file."),
    ] = None
    audio_track: Annotated[
        int | None,
        option(
            "--audio-track",
            panel="Clip",
            metavar="N",
            help="Which sound track of the clip, from 0.",
        ),
    ] = None

    def __post_init__(self) -> None:
        for name in ("fps", "max_frames", "max_pixels"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(
                    f"--{name.replace('_', '-')} {value:g} cannot be used.",
                    hint="Give a number above 0.",
                )
        if self.still is not None and not 0 <= self.still < 256:
            raise UsageError(
                f"--still {self.still} cannot be used.", hint="Give 0 to 255 grey levels, like 16."
            )
        if self.audio_track is not None and self.audio_track < 0:
            raise UsageError("--audio-track counts from 0.", hint="Give 0 for the first track.")
        if self.no_audio and self.no_video:
            raise UsageError(
                "--no-audio and --no-video together leave nothing to look at.",
                hint="Give one of them.",
            )
        if self.no_audio and (self.audio_file is not None or self.audio_track is not None):
            raise UsageError("--no-audio excludes --audio and --audio-track.", hint="Drop one.")
        if self.audio_file is not None and not self.audio_file.is_file():
            raise MediaError(
                "There is no such file.", path=self.audio_file, hint="Check the path of --audio."
            )


@dataclass(frozen=True)
class DropFlags:
    """Which tokens are dropped."""

    budget: Annotated[
        Any,
        option(
            "--budget",
            "-b",
            panel="Token dropping",
            metavar="SHARE",
            parser=parse_budget,
            help=f"Share of audio and video tokens kept, mean over the layers, above 0 and up "
            f"to 1 ({DEFAULT_BUDGET}); 1 keeps all. auto: what the question needs, up to "
            f"{DEFAULT_BUDGET}.",
        ),
    ] = None
    keep_mass: Annotated[
        float | None,
        option(
            "--keep-mass",
            panel="Token dropping",
            metavar="P",
            help=f"With --budget auto: keep the tokens with this share of the question's attention "
            f"({DEFAULT_MASS}); less is cheaper.",
        ),
    ] = None
    method: Annotated[
        str | None,
        option(
            "--method",
            panel="Token dropping",
            metavar="NAME",
            help="omnidrop, or another that `omnidrop models` lists; none keeps all.",
        ),
    ] = None
    preset: Annotated[
        str | None,
        option(
            "--preset",
            panel="Token dropping",
            metavar="NAME",
            help="A published setting that `omnidrop models` lists, or a file from `omnidrop "
            "calibrate`.",
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            panel="Token dropping",
            metavar="NAME=VALUE",
            envvar=None,
            help="A setting of the method; repeatable.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.budget not in (None, "auto") and not 0.0 < self.budget <= 1.0:
            raise UsageError(
                f"A budget of {self.budget:g} cannot be kept.",
                hint="Give a share of the audio and video tokens above 0 and up to 1, like 0.3.",
            )
        if self.budget == "auto" and (self.preset or self.method or AUTO) != AUTO:
            raise UsageError(
                f"--budget auto is the method {AUTO}, and excludes --preset and other methods.",
                hint="Drop --method or --preset, or give a number.",
            )
        if self.preset is not None and self.method is not None:
            raise UsageError("A preset brings its own method.", hint="Drop --method.")
        if self.preset is not None and self.budget is not None and not self.preset_file:
            raise UsageError("A preset fixes the budget.", hint="Drop --budget or --preset.")
        if self.keep_mass is not None:
            if self.budget != "auto" and self.method != AUTO:
                raise UsageError("--keep-mass goes with --budget auto.", hint="Give both.")
            if not 0.0 < self.keep_mass < 1.0:
                raise UsageError(
                    f"--keep-mass {self.keep_mass:g} is no share between 0 and 1.",
                    hint=f"The default is {DEFAULT_MASS}.",
                )

    @property
    def preset_file(self) -> Path | None:
        """Return the file that --preset names, if it names one."""
        name = self.preset
        if name is None or not (name.lower().endswith(".json") or Path(name).is_file()):
            return None
        return Path(name)

    @property
    def pairs(self) -> tuple[str, ...]:
        """Return the NAME=VALUE words."""
        return tuple(self.settings or ()) or lines_of("OMNIDROP_SET")


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
        option("--max-new-tokens", panel="Answer", metavar="N", help="Longest answer (128)."),
    ] = 128
    temperature: Annotated[
        float,
        option(
            "--temperature",
            panel="Answer",
            metavar="T",
            help="0 takes the likeliest token (default); more is more varied.",
        ),
    ] = 0.0
    top_p: Annotated[
        float,
        option(
            "--top-p",
            panel="Answer",
            metavar="P",
            help="Sample from the likeliest tokens that hold this share (1).",
        ),
    ] = 1.0
    seed: Annotated[
        int, option("--seed", panel="Answer", metavar="N", help="Seed of everything random (0).")
    ] = 0

    def __post_init__(self) -> None:
        if self.choices is not None:
            parse_choices(self.choices)
        if self.max_new_tokens < 1:
            raise UsageError("--max-new-tokens must be 1 or more.", hint="The default is 128.")
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError("--temperature must be 0 or more.", hint="0 is the default.")
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError("--top-p must be above 0 and up to 1.", hint="1 is the default.")
        check_seed(self.seed)


@dataclass(frozen=True)
class OutputFlags:
    """Where the answer and the report go."""

    json: Annotated[bool, option("--json", panel="Output", help="One JSON document on stdout.")] = (
        False
    )
    jsonl: Annotated[
        bool, option("--jsonl", panel="Output", help="One line of JSON per answer on stdout.")
    ] = False
    report: Annotated[
        Report | None,
        option(
            "--report",
            panel="Output",
            help="On stderr. On a terminal: full for one answer, brief for more; else none.",
        ),
    ] = None
    save: Annotated[
        Path | None,
        option(
            "--save",
            panel="Output",
            metavar="FILE",
            parser=parse_save,
            help="Write answers and full report to FILE.json, .html, .svg or .txt.",
        ),
    ] = None
    force: Annotated[bool, option("--force", panel="Output", help="Let --save replace a file.")] = (
        False
    )
    quiet: Annotated[
        bool, option("--quiet", panel="Output", help="No report, progress or notices.")
    ] = False
    debug: Annotated[
        bool, option("--debug", panel="Output", help="Show tracebacks and library warnings.")
    ] = False

    def __post_init__(self) -> None:
        if self.json and self.jsonl:
            raise UsageError("--json and --jsonl exclude each other.", hint="Give one of them.")
        if self.save is not None:
            from omnidrop_cli.files.answers import check_target

            check_target(self.save, self.force)
