"""Make the second question set: clips and questions by code that is not AVSynth's.

python samples/make_second.py --out second              20 clips, 60 questions
python samples/make_second.py --out other --seed 500    the same of other clips
omnidrop eval second/questions.jsonl --budget .3,.1 --out results
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from second.files import CLIPS, PER_CLIP, write_set


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for clips and questions")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first clip")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--per-clip", type=int, default=PER_CLIP)
    args = parser.parse_args()
    if min(args.seed, args.clips - 1, args.per_clip - 1) < 0:
        parser.error("--seed must be 0 or more, --clips and --per-clip 1 or more.")
    count = write_set(args.out, args.seed, args.clips, args.per_clip)
    print(f"{count} questions: {args.out / 'questions.jsonl'}")


if __name__ == "__main__":
    main()
