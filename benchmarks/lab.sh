#!/usr/bin/env bash
# The methods on the lab model (samples/train_lab.py), beside the demo model's table: every method
# at 50, 30, 20, 10 and 5 %, and OmniDrop taken apart at 20 %. The last argument says how many
# questions; the demo's 600 take most of a day on two cores. A call that was stopped goes on. The
# last variant is omnidrop-auto as it was tuned for the lab model (docs/log.md).
#
#     bash benchmarks/lab.sh /tmp/lab/lab-model /tmp/avsynth /tmp/lab-comparison 120
#     BUDGETS=.2,.1 METHODS=omnidrop-auto,random bash benchmarks/lab.sh ...
set -euo pipefail
lab=$1 clips=$2 out=$3 limit=${4:-600}
budgets=${BUDGETS:-.5,.3,.2,.1,.05}
methods=${METHODS:-omnidrop-auto,omnidrop,seats,random,uniform,divprune,omnizip,dash,omnipack,evs,omnifocus,omniroute,apack,dycoke,visionzip,fastv,pyramiddrop,sparsevlm}
cd "$(dirname "$0")/.."
omnidrop=${OMNIDROP:-omnidrop}
[ -d "$clips/clips" ] || python samples/make_clips.py --out "$clips"
set_options=(--videos "$clips" --model "$lab" --offline --max-new-tokens 8 --limit "$limit")

"$omnidrop" eval avsynth "${set_options[@]}" --out "$out/methods" --budget "$budgets" \
    --baseline omnidrop-auto,random \
    --method "$methods" \
    --variant "omnidrop-even=uniform+omnidrop" \
    --variant "random-sigmoid=random+random@omnidrop" \
    --variant "omnidrop-auto-lab=omnidrop-auto:lead=1.5,free=26"

"$omnidrop" eval avsynth "${set_options[@]}" --out "$out/omnidrop" --budget .2 \
    --method omnidrop --baseline omnidrop \
    --variant "exponential=omnidrop:schedule=exponential" \
    --variant "step=omnidrop:schedule=step" \
    --variant "diversity off=omnidrop:diversity=0" \
    --variant "rows last=omnidrop:rows=last" \
    --variant "rows all text=omnidrop:rows=all-text" \
    --variant "entry uniform=uniform+omnidrop" \
    --variant "entry none=none+omnidrop"
