#!/usr/bin/env bash
# ContextGuard's row on Qwen2.5-Omni-7B (arXiv 2605.11605).
#     bash benchmarks/papers/contextguard.sh --out results/contextguard --predictor DIR worldsense=DIR
# `--show` prints settings and figures and runs nothing; other options: `--help`.
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/table.py" contextguard "$@"
