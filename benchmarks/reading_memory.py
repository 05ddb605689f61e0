"""Peak memory of reading a clip: does an hour take more than a minute?

Makes a 1-minute and a 60-minute 720p clip with audio, reads each in a process of its own (frames,
patches and log-mel; no model), and prints peak resident set and seconds of both.

    python benchmarks/reading_memory.py [--folder DIR] [--minutes 1 60]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

READ = """
import json, resource, sys, time
from omnidrop.clip.clip import open_clip
from omnidrop.clip.patches import patches
start = time.perf_counter()
rows = 0
with open_clip(sys.argv[1]) as clip:
    mel = clip.log_mel()
    for chunk in clip.frame_chunks():
        rows += patches(chunk.frames, clip.spec.video)[0].shape[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_mib": round(peak), "seconds": round(time.perf_counter() - start, 1),
                      "fps": clip.plan.fps, "patches": rows, "mel_frames": mel.shape[1]}))
"""


def make_clip(path: Path, minutes: float) -> None:
    """Write a 720p H.264/AAC clip whose video and tone change slowly."""
    import av
    import numpy as np

    fps, rate = 5, 16000
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "30"})
        video.width, video.height, video.pix_fmt = 1280, 720, "yuv420p"
        audio = out.add_stream("aac", rate=rate, layout="mono")
        base = np.add.outer(np.arange(720), np.arange(1280)) // 8
        second = np.arange(rate) / rate
        for i in range(int(minutes * 60)):
            for j in range(fps):
                grey = ((base + 3 * (i * fps + j)) % 256).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(np.repeat(grey[..., None], 3, 2), "rgb24")
                frame.pts, frame.time_base = i * fps + j, Fraction(1, fps)
                out.mux(video.encode(frame.reformat(format="yuv420p")))
            tone = (0.3 * np.sin(2 * np.pi * (200 + i % 400) * second)).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(tone[None], "fltp", "mono")
            sound.sample_rate, sound.pts, sound.time_base = rate, i * rate, Fraction(1, rate)
            out.mux(audio.encode(sound))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the clips here for later runs")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 60])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        results = {}
        for minutes in options.minutes:
            path = folder / f"{minutes:g}-minutes.mp4"
            if not path.exists():
                make_clip(path, minutes)
            done = subprocess.run(
                [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
            )
            results[f"{minutes:g}"] = json.loads(done.stdout)
    print(f"{'minutes':>8} {'peak MiB':>9} {'seconds':>8} {'true fps':>9}")
    for minutes, row in results.items():
        print(f"{minutes:>8} {row['peak_mib']:>9} {row['seconds']:>8} {row['fps']:>9.3f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
