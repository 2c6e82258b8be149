#!/usr/bin/env bash
# From LJSpeech recordings to a trained vocoder, copies of dev and eval, scores and a page to listen to.
#   ./run.sh                                        bundled corpus, all stages
#   ./run.sh --corpus DIR --stage 0 --stop_stage 5  an LJSpeech tree, or flacs/wavs with metadata.csv
# Every stage can be repeated and skips what is done. Options: any variable below, as --name value.
set -euo pipefail

stage=0             # first stage
stop_stage=5        # last stage
corpus=bundled      # bundled, or a folder with metadata.csv and wavs/
dumpdir=            # an existing ESPnet dump: its raw/{tr_no_dev,dev,eval1}/wav.scp replace stage 0
train_config=conf/melglow.yaml
tag=                # name of the experiment; default: the configuration's
expdir=exp          # where everything is written
downloads=downloads # where stage -1 puts LJSpeech-1.1
ngpu=0              # GPUs to train on, on this node; 0: CPU
device=             # where to decode: cpu or cuda; default: cuda if ngpu > 0
nj=1                # decoding jobs
max_epoch=          # overrides the configuration's
init_param=         # a trained model to continue from: file.pth, as ESPnet's --init_param
train_args=         # more options of the ESPnet2 trainer
inference_model=valid.loss.best.pth  # which of the trainer's models is decoded
sigma=0.6           # std of z when sampling
seed=0              # of z
python=python3

log() { echo "$(date '+%Y-%m-%dT%H:%M:%S') (run.sh:${BASH_LINENO[0]}) $*"; }
die() { log "ERROR: $*" >&2; exit 2; }

while [ $# -gt 0 ]; do
    case "$1" in
    --help|-h) sed -n '2,/^python=/p' "$0"; exit 0 ;;
    --*)
        name=${1#--}; name=${name//-/_}
        [[ "${name}" =~ ^[a-z_]+$ ]] && [ -n "${!name+set}" ] || die "unknown option $1 (see --help)"
        [ $# -ge 2 ] || die "option $1 has no value"
        printf -v "${name}" '%s' "$2"; shift 2 ;;
    *) die "unexpected argument $1 (see --help)" ;;
    esac
done

cd "$(dirname "$0")"
. ./path.sh
. ./cmd.sh
[ -f "${train_config}" ] || die "train_config ${train_config} does not exist"
tag=${tag:-$(basename "${train_config}" .yaml)}
device=${device:-$([ "${ngpu}" -gt 0 ] && echo cuda || echo cpu)}
lists=${expdir}/lists
stats=${expdir}/stats_$(basename "${train_config}" .yaml)
exp=${expdir}/${tag}
due() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }

if due -1; then
    log "Stage -1: download LJSpeech-1.1 (2.6 GB) into ${downloads}"
    local/data_download.sh "${downloads}"
fi

if due 0; then
    if [ -n "${dumpdir}" ]; then
        log "Stage 0: skipped, the lists of ${dumpdir} are used"
    else
        [ "${corpus}" = bundled ] && corpus=corpus
        log "Stage 0: data preparation from ${corpus}"
        ${python} local/data_prep.py "${corpus}" data
    fi
fi

if due 1; then
    log "Stage 1: check of the recordings, statistics of their mels"
    source_dir=$([ -n "${dumpdir}" ] && echo "${dumpdir}/raw" || echo data)
    ${python} local/check_corpus.py "${source_dir}" "${lists}" --config "${train_config}"
    ${train_cmd} ${python} -m melglow_plugin.espnet.train --collect_stats true \
        --config "${train_config}" --output_dir "${stats}" --batch_size 4 \
        --train_data_path_and_name_and_type "${lists}/tr_no_dev/wav.scp,speech,sound" \
        --train_shape_file "${lists}/tr_no_dev/wav.scp" \
        --valid_data_path_and_name_and_type "${lists}/dev/wav.scp,speech,sound" \
        --valid_shape_file "${lists}/dev/wav.scp" > "${stats}.log" 2>&1 \
        || { tail -n 5 "${stats}.log" >&2; die "statistics failed, see ${stats}.log"; }
    log "Statistics of the mels: ${stats}/train/feats_stats.npz"
fi

if due 2; then
    log "Stage 2: training, see ${exp}/train.log and ${exp}/images; resumes where it was stopped"
    mkdir -p "${exp}"
    ${cuda_cmd} ${python} -m melglow_plugin.espnet.train --config "${train_config}" --output_dir "${exp}" \
        --ngpu "${ngpu}" --multiprocessing_distributed true --resume true \
        --mel_stats "${stats}/train/feats_stats.npz" \
        --train_data_path_and_name_and_type "${lists}/tr_no_dev/wav.scp,speech,sound" \
        --train_shape_file "${lists}/tr_no_dev/wav.scp" \
        --valid_data_path_and_name_and_type "${lists}/dev/wav.scp,speech,sound" \
        --valid_shape_file "${lists}/dev/wav.scp" \
        ${max_epoch:+--max_epoch "${max_epoch}"} ${init_param:+--init_param "${init_param}"} ${train_args} \
        >> "${exp}/train.log" 2>&1 || { tail -n 5 "${exp}/train.log" >&2; die "training failed, see ${exp}/train.log"; }
fi
