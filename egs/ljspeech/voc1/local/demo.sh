#!/usr/bin/env bash
# The main job in ten minutes: the bundled recordings, a short training run that continues from the pretrained model,
# copies of the eval clips, scores beside Griffin-Lim, and a page to listen to.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "demo: 100 training steps, 20 copies, scores and a page; about ten minutes on two free cores, twice that beside other work"
./run.sh --train_config conf/melglow_demo.yaml --expdir exp/demo --tag melglow \
    --pretrained ../../../pretrained/melglow_ljspeech --nj 2 "$@"
