"""Train the demo model's audio-to-visual predictor, which ContextGuard needs.

python samples/train_demo_a2v.py                       writes samples/demo-model/a2v/
python samples/train_demo_a2v.py --out DIR --clips 40  a small one in another folder

The clips come from training seeds, which no question set uses. They are written as files and read
back, so that they have passed through the same codecs as real clips. Takes about ten minutes on two
CPU cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from avsynth.media import write_clip  # noqa: E402
from avsynth.sound import load_bank  # noqa: E402
from avsynth.world import TEST_SEEDS, WorldOptions, draw_clip  # noqa: E402

FIRST_SEED = 700_000_000
CLIPS = 300
BOTH = WorldOptions(modes=(1.0, 0.0, 0.0))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "demo-model" / "a2v")
    parser.add_argument("--model", default=str(HERE / "demo-model"))
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import omnidrop
    from omnidrop.pruning.parts.a2v import save
    from omnidrop.training.a2v import TrainOptions, pairs_of, train

    assert FIRST_SEED + args.clips <= TEST_SEEDS
    model, bank, pairs = omnidrop.load(args.model), load_bank("train"), []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(FIRST_SEED, FIRST_SEED + args.clips):
            path = Path(folder) / f"{seed}.mp4"
            write_clip(path, draw_clip(seed, BOTH), bank)
            with model.open(path) as session:
                pairs.append(pairs_of(session))
            path.unlink()
            if len(pairs) % 50 == 0:
                print(f"{len(pairs)} clips", flush=True)
    options = TrainOptions(steps=args.steps, seed=args.seed)
    trained = train(pairs, model.adapter, options)
    save(args.out, trained)
    for name, value in trained.training.items():
        print(f"{name:32} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
