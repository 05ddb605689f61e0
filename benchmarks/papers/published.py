"""What four papers publish: the rows of their tables, the settings behind them, and the figures.

Every figure has a source that is named in its table. What no source at hand says is listed under
`unknown` and has no figure. Settings come from the methods' own presets, so that a row is what the
method's file calls published. A table has the rows of its own method: papers print the settings of
their rivals in part at most.
"""

from __future__ import annotations

from typing import Any

from benchmarks.papers.rows import Asked, Column, Figures, Row, Table
from omnidrop.evaluation.runner import UNPRUNED

#: Pixels of a frame of 144 tokens, by model family: 28² and 32² pixels a token.
TOKENS_144 = 144 * 28**2
TOKENS_144_LARGE = 144 * 32**2

_WORDING = (
    "Questions are worded as `omnidrop eval` words lettered choices, and there is no option for "
    "another wording. A reply counts only if it names exactly one choice."
)
_SUBTITLES = "Video-MME is asked without subtitles."


# OmniDrop -----------------------------------------------------------------------------------------

_OMNIDROP = "https://arxiv.org/abs/2605.14458"
_OMNIDROP_ASKED = Asked(fps=2, max_pixels=TOKENS_144)
_OMNIDROP_COLUMNS = (
    Column("video-mme", "Video-MME", _OMNIDROP_ASKED),
    Column("worldsense", "WorldSense", _OMNIDROP_ASKED),
    Column("avut", "AVUT", _OMNIDROP_ASKED),
)
_OMNIDROP_DIFFERS = (
    _WORDING,
    _SUBTITLES,
    "Which text rows ask, and how heads are joined, the paper does not say: the user's question, "
    "and the mean.",
    "70 % of the audio and 40 % of the video enter in the paper, about 45 % of all. Here exactly "
    "45 % enter, in that proportion.",
)
_OMNIDROP_UNKNOWN = (
    "Frames and pixels. The paper says 288 video tokens in a chunk of two seconds: taken as two "
    "frames a second of at most 144 tokens each, a token covering two frames. The most frames of a "
    "clip are the model's own.",
    "System prompt, wording, longest reply, how replies were read, and whether Video-MME was asked "
    "with subtitles.",
    "Whether AVUT means its human-annotated questions; those are read.",
)
_OMNIDROP_LEFT_OUT = (
    "Video-MME of the ablations.",
    "The settings of two ablations, which are left out: text against audio as the guide, whose own "
    "row of 30 % (WorldSense 46.78, AVUT 61.53) is not the main table's, and the exponential "
    "schedule, whose figures are not known either.",
)
_OMNIDROP_SOURCES = (
    "Settings: sections 2.1, 3 and 4 and appendix A of the paper, by the preset of each row.",
    "Figures: table 2 and the ablation tables of the paper's first version. Two public summaries "
    'that reprint them say the same; "before the LLM only, 45 %" stands in one of them.',
)


def _by_set(video_mme: float | None, worldsense: float, avut: float) -> Figures:
    """Return OmniDrop's figures in the order of its table."""
    own = {"video-mme": video_mme, "worldsense": worldsense, "avut": avut}
    return Figures({name: value for name, value in own.items() if value is not None})


OMNIDROP = Table(
    name="omnidrop",
    title="OmniDrop on Qwen2.5-Omni-7B",
    paper=_OMNIDROP,
    model="7b",
    columns=_OMNIDROP_COLUMNS,
    rows=(
        Row(UNPRUNED, "Full tokens", _by_set(64.67, 46.85, 65.17)),
        Row("omnidrop-30", "OmniDrop 30 %", _by_set(66.52, 46.60, 64.01), "paper-7b-30"),
        Row("omnidrop-20", "OmniDrop 20 %", _by_set(66.44, 46.50, 63.67), "paper-7b-20"),
        Row(
            "entry-45",
            "Before the LLM only, 45 %",
            _by_set(None, 46.50, 64.19),
            preset="paper-7b-30",
            fields={"budget": 0.45, "p_final": 0.0},
        ),
        Row(
            "entry-30",
            "Before the LLM only, 30 %",
            _by_set(None, 44.33, 59.34),
            left_out="The paper does not say how much audio and how much video make up these 30 %.",
        ),
        Row(
            "sigmoid-30",
            "Sigmoid schedule without diversity, 30 %",
            _by_set(None, 46.53, 63.84),
            preset="paper-7b-30",
            fields={"diversity": 0.0},
        ),
        Row(
            "sigmoid-20",
            "Sigmoid schedule without diversity, 20 %",
            _by_set(None, 46.25, 63.32),
            preset="paper-7b-20",
            fields={"diversity": 0.0},
        ),
    ),
    differs=_OMNIDROP_DIFFERS,
    unknown=(*_OMNIDROP_UNKNOWN, *_OMNIDROP_LEFT_OUT),
    sources=_OMNIDROP_SOURCES,
)

OMNIDROP_3B = Table(
    name="omnidrop-3b",
    title="OmniDrop on Qwen2.5-Omni-3B",
    paper=_OMNIDROP,
    model="3b",
    columns=_OMNIDROP_COLUMNS,
    rows=(
        Row(UNPRUNED, "Full tokens"),
        Row("omnidrop-30", "OmniDrop 30 %", preset="paper-3b-30"),
        Row("omnidrop-20", "OmniDrop 20 %", preset="paper-3b-20"),
    ),
    differs=_OMNIDROP_DIFFERS,
    unknown=(*_OMNIDROP_UNKNOWN, "All figures of the 3B model but its memory."),
    sources=_OMNIDROP_SOURCES[:1],
)


# SEATS --------------------------------------------------------------------------------------------

_SEATS = "https://arxiv.org/abs/2605.20035"
_CAREFULLY = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of "
    "perceiving auditory and visual inputs, as well as generating text and speech. Please analyze "
    "the video carefully and select the most appropriate answer from the given options."
)
#: The public code gives the other sets a system turn without a word: its `A + B if C else ""` drops
#: both parts.
_SILENT = ""
#: Sets in the order of the table: name, title, frames on the 7B and the 30B, system prompt, reply.
_SEATS_SETS = (
    ("worldsense", "WorldSense", 128, 128, _CAREFULLY, 1024),
    ("daily-omni", "Daily-Omni", 128, 128, _CAREFULLY, 32),
    ("omnivideobench", "OmniVideoBench", 256, 196, _SILENT, 32),
    ("video-mme", "Video-MME", 768, 196, _SILENT, 16),
    ("lvomnibench", "LVOmniBench", 768, 196, _SILENT, 32),
)
_SEATS_DIFFERS = (
    _WORDING,
    "The public code words each set in its own way and takes the first letter of a reply; on "
    "WorldSense and Daily-Omni it draws a choice where a reply has none.",
)
_SEATS_SOURCES = (
    "Settings: https://github.com/xxayt/SEATS at c553732: `scripts/`, `seats/config*.yaml`, the "
    "models' wrappers and the task files in `lmms-eval/`.",
    "Figures: both tables on https://xxayt.github.io/SEATS/, which are pictures and call "
    "LVOmniBench LVOmniVideo.",
)
_SEATS_UNKNOWN = (
    "Of which set the printed FLOPs are the mean.",
    "Whether the printed rows come from the public code as it stands: on OmniVideoBench, Video-MME "
    "and LVOmniBench that code writes an empty system turn, probably by mistake. It is asked so.",
)


def _seats_row(
    key: str,
    title: str,
    right: tuple[float, ...],
    mean: float,
    of_full: float,
    flops: float,
    **settings: Any,
) -> Row:
    """Return a row of SEATS' table: figures in the order of its sets."""
    named = dict(zip((name for name, *_ in _SEATS_SETS), right, strict=True))
    return Row(key, title, Figures(named, mean, of_full, flops), **settings)


def _seats_pixels(name: str) -> int:
    """Return the most pixels of a frame on the 7B: 768 frames share those of 24576 tokens."""
    return 105_369 if name == "lvomnibench" else TOKENS_144


def _ratios(budget: float, video: float, audio: float) -> dict[str, Any]:
    """Return how a row of the 30B model is made: the shares of video and audio."""
    return {"method": "seats", "fields": {"budget": budget, "ratios": (video, audio)}}


SEATS = Table(
    name="seats",
    title="SEATS on Qwen2.5-Omni-7B",
    paper=_SEATS,
    model="7b",
    columns=tuple(
        Column(name, title, Asked(2, frames, _seats_pixels(name), system, reply))
        for name, title, frames, _, system, reply in _SEATS_SETS
    ),
    rows=(
        _seats_row(UNPRUNED, "Full tokens", (46.7, 64.0, 34.1, 65.3, 33.3), 48.7, 100.0, 1.0),
        _seats_row(
            "seats-35", "SEATS 35 (30-65)", (46.2, 62.1, 35.0, 66.8, 36.2),
            49.3, 101.1, 36.7 / 111.0, preset="seats-35",
        ),
        _seats_row(
            "seats-25", "SEATS 25 (20-55)", (45.3, 60.9, 34.7, 66.5, 35.7),
            48.6, 99.8, 26.5 / 111.0, preset="seats-25",
        ),
        _seats_row(
            "seats-15", "SEATS 15 (10-45)", (44.1, 58.7, 33.7, 66.0, 34.6),
            47.4, 97.4, 17.3 / 111.0, preset="seats-15",
        ),
        _seats_row(
            "seats-10", "SEATS 10 (6-35)", (43.5, 57.8, 33.6, 64.6, 35.1),
            46.9, 96.3, 12.2 / 111.0, preset="seats-10",
        ),
    ),
    differs=(
        *_SEATS_DIFFERS,
        "The public code bounds the pixels of a whole clip too. That is felt above 341 frames and "
        "is no option here: clips of Video-MME beyond 171 seconds have frames of at most 112,896 "
        "pixels, where the code allows as few as 105,369. LVOmniBench, whose clips all have 768 "
        "frames, is asked with 105,369.",
    ),
    unknown=_SEATS_UNKNOWN,
    sources=_SEATS_SOURCES,
)  # fmt: skip

SEATS_30B = Table(
    name="seats-30b",
    title="SEATS on Qwen3-Omni-30B",
    paper=_SEATS,
    model="qwen3-30b",
    columns=tuple(
        Column(name, title, Asked(2, frames, TOKENS_144_LARGE, system, reply))
        for name, title, _, frames, system, reply in _SEATS_SETS
    ),
    rows=(
        _seats_row(UNPRUNED, "Full tokens", (54.3, 71.8, 40.3, 73.1, 38.0), 55.5, 100.0, 1.0),
        _seats_row(
            "seats-35", "SEATS 35 (32-70)", (54.1, 71.9, 39.8, 72.7, 38.5),
            55.4, 99.8, 13.3 / 47.2, **_ratios(0.35, 0.32, 0.70),
        ),
        _seats_row(
            "seats-25", "SEATS 25 (22-60)", (53.6, 71.2, 39.9, 71.8, 37.0),
            54.7, 98.6, 9.0 / 47.2, **_ratios(0.25, 0.22, 0.60),
        ),
        _seats_row(
            "seats-15", "SEATS 15 (12-50)", (51.9, 70.1, 39.9, 71.2, 36.0),
            53.8, 96.9, 5.5 / 47.2, **_ratios(0.15, 0.12, 0.50),
        ),
        _seats_row(
            "seats-10", "SEATS 10 (7-45)", (51.5, 68.1, 40.1, 69.7, 35.7),
            53.0, 95.5, 3.9 / 47.2, **_ratios(0.10, 0.07, 0.45),
        ),
    ),
    differs=_SEATS_DIFFERS,
    unknown=_SEATS_UNKNOWN,
    sources=_SEATS_SOURCES,
)  # fmt: skip


# ContextGuard -------------------------------------------------------------------------------------

CONTEXTGUARD = Table(
    name="contextguard",
    title="ContextGuard on Qwen2.5-Omni-7B",
    paper="https://arxiv.org/abs/2605.11605",
    model="7b",
    columns=(
        Column("worldsense", "WorldSense"),
        Column("daily-omni", "Daily-Omni"),
        Column("avut", "AVUT"),
        Column("video-mme", "Video-MME"),
        Column("music-avqa", "MUSIC-AVQA"),
        Column("omnivideobench", "OmniVideoBench"),
    ),
    rows=(
        Row(UNPRUNED, "Full tokens"),
        Row(
            "contextguard-45",
            "ContextGuard, 55 % pruned",
            method="contextguard",
            fields={"budget": 0.45},
            differs="The paper's order of steps is known, its numbers are not: thresholds, shares "
            "and merging are ours, and so is the predictor, which has to be trained first "
            "(omnidrop train-a2v, then --predictor FOLDER). 55 % of all input tokens are pruned in "
            "the paper, 55 % of the audio and video tokens here.",
        ),
    ),
    differs=(_WORDING, _SUBTITLES),
    unknown=(
        "All accuracies, those on Qwen2.5-Omni-3B and Video-SALMONN 2+ included. The paper's "
        "abstract says: with 55 % of the input tokens pruned, the 7B model is as good as unpruned "
        "on five of six sets.",
        "Which six sets; these are the six of its kind that `omnidrop eval` reads.",
        "Frames, pixels, prompts, longest reply, and how replies were read; the model's own and "
        "those of `omnidrop eval` are taken.",
        "The predictor's shape and training, and every threshold.",
    ),
    sources=("The paper's abstract.",),
)


# A-PACK -------------------------------------------------------------------------------------------

_APACK = "https://arxiv.org/abs/2608.08794"
_APACK_COLUMNS = (
    Column("avut", "AVUT"),
    Column("worldsense", "WorldSense"),
    Column("video-mme", "Video-MME"),
    Column("daily-omni", "Daily-Omni"),
)
_APACK_ENTRY = (
    "Which video tokens enter differs: here segments end by the CKA of neighbouring frames, have "
    "equal shares of their tokens, and farthest-point sampling takes them from every frame. The "
    "paper ends segments by the cosine of smoothed frames, divides the budget by the question's "
    "relevance and a gated CKA of sound and picture over three frames, samples each segment's "
    "first frame alone, and keeps of the others what is least like it. How much enters, and what "
    "is dropped after which layer, is as published."
)
_APACK_UNKNOWN = (
    "Frames, pixels, prompts, longest reply, and how replies were read; the model's own and those "
    "of `omnidrop eval` are taken.",
    "Whether the mean in percent of the unpruned model is a ratio of means, as it is taken here, "
    "or a mean of ratios.",
    "The settings of its ablation, which is left out: all of it at 29.9 % of the FLOPs keeps "
    "97.8 %, the stage before the LLM alone at 44.6 % keeps 97.7 %.",
)
_APACK_SOURCES = (
    "A public summary of the paper, which itself was not at hand: "
    "https://github.com/nanless/audio-paper-digest-blog, 2026-08-11.",
)

APACK = Table(
    name="apack",
    title="A-PACK on Qwen2.5-Omni-7B",
    paper=_APACK,
    model="7b",
    columns=_APACK_COLUMNS,
    rows=(
        Row(UNPRUNED, "Full tokens", Figures({"avut": 64.5}, of_full=100.0, flops=1.0)),
        Row(
            "apack-35",
            "A-PACK, 35 % of the prefill FLOPs",
            Figures(of_full=98.8, flops=0.34),
            preset="apack-35",
            differs=_APACK_ENTRY,
        ),
        Row(
            "apack-25",
            "A-PACK, 25 % of the prefill FLOPs",
            Figures({"avut": 62.2}, of_full=97.0, flops=0.22),
            preset="apack-25",
            differs=_APACK_ENTRY,
        ),
    ),
    differs=(_WORDING, _SUBTITLES),
    unknown=(
        "Accuracies by set but those of AVUT, unpruned and at 25 %.",
        *_APACK_UNKNOWN,
        "FLOPs to more than two digits: about 66 % and 78 % are saved.",
    ),
    sources=_APACK_SOURCES,
)

APACK_3B = Table(
    name="apack-3b",
    title="A-PACK on Qwen2.5-Omni-3B",
    paper=_APACK,
    model="3b",
    columns=_APACK_COLUMNS,
    rows=(
        Row(UNPRUNED, "Full tokens", Figures(of_full=100.0, flops=1.0)),
        Row(
            "apack-35",
            "A-PACK, 35 % of the prefill FLOPs",
            Figures(of_full=97.3),
            preset="apack-35",
            differs=_APACK_ENTRY,
        ),
        Row(
            "apack-25",
            "A-PACK, 25 % of the prefill FLOPs",
            Figures(of_full=95.5),
            preset="apack-25",
            differs=_APACK_ENTRY,
        ),
    ),
    differs=(_WORDING, _SUBTITLES),
    unknown=("All accuracies by set, and the FLOPs.", *_APACK_UNKNOWN),
    sources=_APACK_SOURCES,
)

#: Every table by name.
TABLES = {
    table.name: table
    for table in (OMNIDROP, OMNIDROP_3B, SEATS, SEATS_30B, CONTEXTGUARD, APACK, APACK_3B)
}
