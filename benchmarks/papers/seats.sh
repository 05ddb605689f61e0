#!/usr/bin/env bash
# SEATS' rows on Qwen2.5-Omni-7B (arXiv 2605.20035), published figures beside.
#     bash benchmarks/papers/seats.sh --out results/seats worldsense=DIR daily-omni=DIR
# `--show` prints settings and figures and runs nothing; other options: `--help`.
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/table.py" seats "$@"
