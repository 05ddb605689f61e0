#!/usr/bin/env bash
# The tables and figures of benchmarks/comparison*: every method on AVSynth with the demo model,
# OmniDrop taken apart, omnidrop-auto taken apart, and some methods on clips of other seeds. About
# an hour and a half on one idle core; a call that was stopped goes on where it was.
#
#     bash benchmarks/comparison.sh /tmp/avsynth /tmp/comparison
#
# The first folder receives the clips (rendered from seeds, 12 MB), the second records and tables.
set -euo pipefail
clips=$1 out=$2
cd "$(dirname "$0")/.."
omnidrop=${OMNIDROP:-omnidrop}
[ -d "$clips/clips" ] || python samples/make_clips.py --out "$clips"
set_options=(--videos "$clips" --model demo --offline --max-new-tokens 6)

# Every method as published, and those of benchmarks/presets/ as calibrated on other clips:
#     python samples/make_clips.py --out cal --seed 910000000 --count 50 --questions
#     omnidrop calibrate avsynth:cal --model demo --budget .2,.1 --candidates 10 --limit 220 \
#         --method omnidrop --out benchmarks/presets/omnidrop.json
# fastv, pyramiddrop and sparsevlm with --budget .3,.2, for they reach no less; seats with
# --try late=0.5625,0.65 --try after=[0.3,0.4,0.5],[0.35,0.45,0.5] besides.
variants=()
calibrated() { # presets, budgets
    variants=()
    for preset in $1; do
        for budget in $2; do
            variants+=(--variant "$(basename "$preset" .json)-calibrated=$preset:budget=$budget")
        done
    done
}
presets() { printf 'benchmarks/presets/%s.json ' "$@"; }
every=".5 .3 .2 .1 .05"
calibrated "$(presets seats dash divprune)" "$every"
"$omnidrop" eval avsynth "${set_options[@]}" --out "$out/methods" --budget .5,.3,.2,.1,.05 \
    --baseline omnidrop-auto,random \
    --method omnidrop-auto,omnidrop,seats,random,uniform,divprune,omnizip,dash \
    --variant "omnidrop-even=uniform+omnidrop" \
    "${variants[@]}"

# Those that were far behind, and what calibration makes of them.
calibrated "$(presets omnidrop omnizip visionzip dycoke fastv pyramiddrop sparsevlm)" "$every"
"$omnidrop" eval avsynth "${set_options[@]}" --out "$out/others" --budget .5,.3,.2,.1,.05 \
    --baseline random \
    --method contextguard,visionzip,dycoke,fastv,pyramiddrop,sparsevlm,random \
    --variant "random-sigmoid=random+random@omnidrop" \
    "${variants[@]}"

# OmniDrop taken apart at 20 %: schedule, diversity, rows, entry stage, caches.
"$omnidrop" eval avsynth "${set_options[@]}" --out "$out/omnidrop" --budget .2 \
    --method omnidrop --baseline omnidrop \
    --variant "exponential=omnidrop:schedule=exponential" \
    --variant "step=omnidrop:schedule=step" \
    --variant "asl=omnidrop:turning=asl" \
    --variant "diversity off=omnidrop:diversity=0" \
    --variant "diversity raw=omnidrop:diversity_form=raw" \
    --variant "rows last=omnidrop:rows=last" \
    --variant "rows all text=omnidrop:rows=all-text" \
    --variant "entry uniform=uniform+omnidrop" \
    --variant "entry none=none+omnidrop" \
    --variant "caches cut=omnidrop:cache=cut"

# omnidrop-auto taken apart at 10 %.
"$omnidrop" eval avsynth "${set_options[@]}" --out "$out/auto" --budget .1 \
    --method omnidrop-auto --baseline omnidrop-auto \
    --variant "even tokens=uniform+uniform@omnidrop-auto" \
    --variant "content alone=omnidrop-auto:time=0" \
    --variant "time 0.2=omnidrop-auto:time=0.2" \
    --variant "question, half=omnidrop-auto:power=0.5" \
    --variant "question whole=omnidrop-auto:power=1" \
    --variant "one selection=omnidrop-auto:lead=1" \
    --variant "reading to layer 13=omnidrop-auto:free=13" \
    --variant "keep-mass 0.85=omnidrop-auto:keep_mass=0.85"

# The best on clips that nothing was tried on.
[ -d "$clips-fresh" ] ||
    python samples/make_clips.py --out "$clips-fresh" --seed 930000000 --count 60 --questions
calibrated "benchmarks/presets/seats.json benchmarks/presets/dash.json" ".2 .1 .05"
"$omnidrop" eval "avsynth:$clips-fresh" --model demo --offline --max-new-tokens 6 \
    --out "$out/fresh" --budget .2,.1,.05 --baseline omnidrop-auto,random \
    --method omnidrop-auto,omnidrop,seats,dash,divprune,random \
    --variant "omnidrop-even=uniform+omnidrop" \
    "${variants[@]}"
