"""Which benchmarks can be named as FORMAT:FOLDER (or FORMAT:FILE, its question file)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omnidrop.evaluation.benchmarks.avsynth import avsynth
from omnidrop.evaluation.benchmarks.avut import avut
from omnidrop.evaluation.benchmarks.daily_omni import daily_omni
from omnidrop.evaluation.benchmarks.lvomnibench import lvomnibench
from omnidrop.evaluation.benchmarks.music_avqa import music_avqa
from omnidrop.evaluation.benchmarks.omnivideobench import omnivideobench
from omnidrop.evaluation.benchmarks.video_mme import video_mme
from omnidrop.evaluation.benchmarks.worldsense import worldsense
from omnidrop.evaluation.items import QuestionSet

#: Format name -> function of (folder or question file, folder of clips or None).
LAYOUTS: dict[str, Callable[[Path, Path | None], QuestionSet]] = {
    "avsynth": avsynth,
    "worldsense": worldsense,
    "daily-omni": daily_omni,
    "avut": avut,
    "video-mme": video_mme,
    "music-avqa": music_avqa,
    "omnivideobench": omnivideobench,
    "lvomnibench": lvomnibench,
}
