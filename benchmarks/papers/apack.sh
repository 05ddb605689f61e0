#!/usr/bin/env bash
# A-PACK's rows on Qwen2.5-Omni-7B (arXiv 2608.08794), published figures beside.
#     bash benchmarks/papers/apack.sh --out results/apack avut=DIR worldsense=DIR
# `--show` prints settings and figures and runs nothing; other options: `--help`.
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/table.py" apack "$@"
