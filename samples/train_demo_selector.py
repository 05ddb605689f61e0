"""Train OmniSIFT's audio selector for the demo model.

python samples/train_demo_selector.py --out DIR                        300 clips, one epoch
python samples/train_demo_selector.py --out DIR --clips 4 --steps 2    a short trial
python samples/train_demo_selector.py --out DIR --unfreeze             the decoder's layers too

Clips and questions come from training seeds, which no question set uses. The clips are written as
files beside DIR and read back, so that they have passed through the same codecs as real ones. A
call that was stopped goes on where it last saved.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from avsynth.media import write_clip  # noqa: E402
from avsynth.questions import facts_of, word  # noqa: E402
from avsynth.sound import load_bank  # noqa: E402
from avsynth.world import TEST_SEEDS, WorldOptions, draw_clip  # noqa: E402

FIRST_SEED = 710_000_000
CLIPS, QUESTIONS = 300, 8
BOTH = WorldOptions(modes=(1.0, 0.0, 0.0))


def write_lessons(folder: Path, count: int) -> list[tuple[Path, str, str]]:
    """Write the clips that are not there yet; return clip, question and answer of each lesson."""
    from omnidrop.files import whole_file

    bank, found = load_bank("train"), []
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        clip, path = draw_clip(seed, BOTH), folder / f"{seed}.mp4"
        if not path.exists():
            with whole_file(path, force=False) as draft:
                write_clip(draft, clip, bank)
        rng = np.random.default_rng([seed, 11])
        facts = list(dict.fromkeys(facts_of(clip, rng)))
        for number in rng.permutation(len(facts))[:QUESTIONS]:
            asked = word(facts[int(number)], rng, True)
            found.append((path, asked.text, asked.answer))
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the selector goes here")
    parser.add_argument("--model", default=str(HERE / "demo-model"))
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, help="steps, in place of the epochs' number")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--budget", type=float, help="share of tokens kept while training")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--unfreeze", action="store_true", help="train the decoder too")
    parser.add_argument("--decoder-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import omnidrop
    from omnidrop.training.selector import Lesson, SelectorOptions, train

    assert FIRST_SEED + args.clips <= TEST_SEEDS
    written = write_lessons(args.out.with_name(f"{args.out.name}-clips"), args.clips)
    options = SelectorOptions(
        hidden=args.hidden,
        epochs=args.epochs,
        steps=args.steps,
        budget=args.budget,
        rate=args.rate,
        unfreeze=args.unfreeze,
        decoder_rate=args.decoder_rate,
        seed=args.seed,
    )
    model = omnidrop.load(args.model, dtype="float32")

    def progress(stage: str, done: float, total: float | None) -> None:
        if stage == "training" and done % 25 == 0:
            print(f"{done:.0f} of {total:.0f} steps", flush=True)

    result = train(model, [Lesson(*one) for one in written], args.out, options, progress=progress)
    for name, value in result.trained.training.items():
        print(f"{name:24} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
