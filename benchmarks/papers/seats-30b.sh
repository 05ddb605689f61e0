#!/usr/bin/env bash
# SEATS' rows on Qwen3-Omni-30B (arXiv 2605.20035), published figures beside.
#     bash benchmarks/papers/seats-30b.sh --out results/seats-30b worldsense=DIR daily-omni=DIR
# `--show` prints settings and figures and runs nothing; other options: `--help`.
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/table.py" seats-30b "$@"
