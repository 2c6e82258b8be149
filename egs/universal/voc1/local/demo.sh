#!/usr/bin/env bash
# The released models on four other voices: copies of the bundled clips beside Griffin-Lim, scores, a page to listen to.
# Nothing is trained.
set -euo pipefail
cd "$(dirname "$0")/.."
. ../../ljspeech/voc1/path.sh
systems=(--peer recordings --peer griffin_lim)
for model in melglow_universal melglow_ljspeech; do
    [ ! -d "../../../pretrained/${model}" ] || systems+=(--model "${model}=../../../pretrained/${model}")
done
python3 ../../../benchmarks/voices.py --clips corpus "${systems[@]}" --json exp/demo/scores.json --wavs exp/demo/wav \
    --against griffin_lim --tables exp/demo/tables.md
python3 local/page.py exp/demo/scores.json exp/demo/wav --title "Four voices, copied by the released models" --out exp/demo/report
echo "Listen: $(pwd -P)/exp/demo/report/index.html"
