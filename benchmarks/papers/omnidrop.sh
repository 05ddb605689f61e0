#!/usr/bin/env bash
# OmniDrop's rows and ablation on Qwen2.5-Omni-7B (arXiv 2605.14458), published figures beside.
#     bash benchmarks/papers/omnidrop.sh --out results/omnidrop video-mme=DIR worldsense=DIR avut=DIR
# `--show` prints settings and figures and runs nothing; other options: `--help`.
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/table.py" omnidrop "$@"
