#!/usr/bin/env bash
# OmniDrop's rows on Qwen2.5-Omni-3B (arXiv 2605.14458).
#     bash benchmarks/papers/omnidrop-3b.sh --out results/omnidrop-3b video-mme=DIR worldsense=DIR avut=DIR
# `--show` prints settings and figures and runs nothing; other options: `--help`.
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/table.py" omnidrop-3b "$@"
