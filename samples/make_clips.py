"""Make clips: the six sample clips, those of the question set, or others from seeds.

python samples/make_clips.py --out DIR                  the clips of avsynth/test.jsonl
python samples/make_clips.py --ready samples            the six committed .mp4 files
python samples/make_clips.py --out DIR --seed 5 --count 3
python samples/make_clips.py --out DIR --seed 910000000 --count 100 --questions
                                                        a question set of other clips
python samples/make_clips.py --out DIR --seed 910000000 --count 100 --questions --wide
                                                        longer clips, things at the same time, words
                                                        on screen and spoken words
python samples/make_clips.py --check                    fingerprints of the question set
python samples/make_clips.py --write-test               draw the question set again
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from avsynth import testset  # noqa: E402
from avsynth.media import fingerprint, render, write_clip, write_mp4  # noqa: E402
from avsynth.ready import ready_clips  # noqa: E402
from avsynth.sound import load_bank  # noqa: E402
from avsynth.world import draw_clip  # noqa: E402


def make_ready(folder: Path) -> None:
    """Write the six sample clips."""
    bank = load_bank("train")
    for item in ready_clips():
        frames, audio = render(item.clip, bank)
        write_mp4(folder / f"{item.name}.mp4", frames, audio, kbits=item.kbits)


def make_test(folder: Path) -> None:
    """Write the clips of the question set, and its questions in the same folder."""
    for seed in testset.test_seeds():
        write_clip(folder / testset.clip_name(seed), testset.test_clip(seed))
    shutil.copy(testset.FOLDER / "test.jsonl", folder / "test.jsonl")


def make_set(folder: Path, seeds: list[int], wide: bool = False) -> int:
    """Write a question set from other seeds; return the number of questions."""
    draw = testset.wide_clip if wide else testset.test_clip
    for seed in seeds:
        write_clip(folder / testset.clip_name(seed), draw(seed))
    return testset.write(folder, seeds, wide)


def check() -> int:
    """Return the number of test clips whose fingerprint differs from the recorded one."""
    wanted = testset.read_fingerprints()
    return sum(fingerprint(testset.test_clip(int(s))) != f for s, f in wanted.items())


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for clips")
    parser.add_argument("--ready", type=Path, help="folder for the six sample clips")
    parser.add_argument("--seed", type=int, help="first seed, for clips outside the question set")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument(
        "--questions",
        action="store_true",
        help="with --seed: a question set of these clips, for `omnidrop eval avsynth:DIR`",
    )
    parser.add_argument(
        "--wide",
        action="store_true",
        help="with --questions: clips of up to a minute, overlaps, words on screen and said",
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write-test", action="store_true")
    args = parser.parse_args()
    if args.wide and not args.questions:
        parser.error("--wide goes with --questions.")
    if args.write_test:
        print(testset.write(), "questions")
    if args.ready:
        make_ready(args.ready)
    if args.out and args.seed is None:
        make_test(args.out)
    elif args.out and args.questions:
        try:
            seeds = testset.fresh_seeds(args.seed, args.count)
        except ValueError as problem:
            parser.error(f"{problem}.")
        print(make_set(args.out, seeds, args.wide), "questions")
    elif args.out:
        for seed in range(args.seed, args.seed + args.count):
            write_clip(args.out / f"clip_{seed}.mp4", draw_clip(seed), load_bank("train"))
    if args.check:
        wrong = check()
        print("all fingerprints equal" if not wrong else f"{wrong} clips differ")
        return int(wrong > 0)
    if not (args.write_test or args.ready or args.out):
        parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
