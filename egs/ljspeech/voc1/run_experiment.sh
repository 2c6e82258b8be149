#!/usr/bin/env bash
# The paper's comparison: MelGlow and WaveGlow at three equal sizes, on the same crops, steps, batch, schedule and seeds.
#   ./run_experiment.sh --corpus DIR
# Writes curves.csv, scores.csv, curves.png and table.md into --out. Repeated, it continues where it was stopped.
set -euo pipefail

corpus=bundled     # bundled, or a folder with metadata.csv and wavs/
expdir=exp/experiment
out=exp/experiment/results
sizes="small base large"
seeds="777"        # of training, one run each
steps=5000
validate_every=250 # steps from one validation to the next
batch_size=8       # crops
early_every=4      # flows between early outputs, as in WaveGlow; 12: none
likelihood=true    # the paper's loss; false: the spectral terms of the configurations as well
decode=true        # copies and scores of eval1
nj=1
ngpu=0
# End of options

die() { echo "run_experiment.sh: ERROR: $*" >&2; exit 2; }

. "$(dirname "$0")/local/parse_options.sh"
cd "$(dirname "$0")"
. ./path.sh
[ $((steps % validate_every)) -eq 0 ] || die "steps ${steps} is no multiple of validate_every ${validate_every}"

config() { # model, size
    [ "$1-$2" = melglow-base ] && echo conf/melglow.yaml || echo "conf/$1_$2.yaml"
}
common=(--corpus "${corpus}" --expdir "${expdir}" --stats "${expdir}/stats" --nj "${nj}" --ngpu "${ngpu}")
for size in ${sizes}; do
    for model in melglow waveglow; do [ -f "$(config ${model} "${size}")" ] || die "size ${size} has no $(config ${model} "${size}")"; done
done

[ -f "${expdir}/stats/train/feats_stats.npz" ] || ./run.sh "${common[@]}" --stage 0 --stop_stage 1
for seed in ${seeds}; do
    arguments="--seed ${seed} --batch_size ${batch_size} --num_iters_per_epoch ${validate_every} --num_att_plot 0 --use_matplotlib false --vocoder_conf early_every=${early_every}"
    if [ "${likelihood}" = true ]; then arguments+=" --loss_conf stft=0.0 --loss_conf mel=0.0 --loss_conf activation_penalty=0.0"; fi
    for size in ${sizes}; do
        for model in melglow waveglow; do
            ./run.sh "${common[@]}" --train_config "$(config ${model} "${size}")" --tag "${model}_${size}_seed${seed}" \
                --stage 2 --stop_stage "$([ "${decode}" = true ] && echo 4 || echo 2)" --max_epoch $((steps / validate_every)) --refine 0 \
                --train_args "${arguments}"
        done
    done
done
python3 local/experiment.py "${expdir}" --out "${out}" --steps "${steps}"
