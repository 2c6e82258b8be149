#!/usr/bin/env bash
# From recordings of many speakers to a vocoder for any voice, copies of held-out speakers, scores and a page.
#   ./run.sh                                        the bundled clips of four voices, to see every stage work
#   ./run.sh --train "DIR LIST ..."                 dev and eval: speakers that are held out of these
#   ./run.sh --train DIR --same_speakers true       one voice: dev and eval are recordings that are held out
#   ./run.sh --train "..." --dev "..." --eval "..." sets of your own
#   ./run.sh --dumpdir VCTK_TTS1/dump/raw           an ESPnet dump: its sets, speakers from utt2spk
# Stage 0 is this recipe's; stages 1 to 5 and all further options are those of ../../ljspeech/voc1/run.sh (--help there).
set -euo pipefail

stage=0          # first stage
stop_stage=5     # last stage
train=           # a folder or list of recordings, or several, separated by spaces (README.md); empty: the bundled clips
dev=             # the same, for validation; neither dev nor eval: whole speakers are held out of train, or recordings
eval=            # the same, for copies and scores
dumpdir=         # instead of all three: a folder with the sets below, each with wav.scp and utt2spk
sets="tr_no_dev dev eval1"  # of dumpdir: train, dev, eval
same_speakers=false         # true: dev and eval have speakers of train, as in ESPnet's VCTK recipe
train_config=conf/melglow_universal.yaml
pretrained=../../../pretrained/melglow_universal  # a model folder to begin from; empty: none
speaker_cap=0.1  # largest share of one speaker
corpus_name=     # for the model's card and the page; default: many voices, or the name of the only one
data=data        # where stage 0 writes lists and resampled copies
expdir=exp       # where everything else is written
check=false      # true: check the options and do nothing
# End of options
first_stage=0 last_stage=5

log() { echo "$(date '+%Y-%m-%dT%H:%M:%S') (run.sh:${BASH_LINENO[0]}) $*"; }
die() { log "ERROR: $*" >&2; exit 2; }

others=()
other() { others+=("$@"); }

. "$(dirname "$0")/../../ljspeech/voc1/local/parse_options.sh"

cd "$(dirname "$0")"
shared=../../ljspeech/voc1
. "${shared}/path.sh"
options=(--train_config "${train_config}" --pretrained "${pretrained}"
         --speaker_cap "${speaker_cap}" ${others[@]+"${others[@]}"})
given=()
give() { # option, its value: one path, which may have spaces in it, or several paths
    if [ -e "$2" ]; then given+=("$1" "$2"); elif [ -n "$2" ]; then given+=("$1" $2); fi
}
"${shared}/run.sh" "${options[@]}" --stage "${stage}" --stop_stage "${stop_stage}" --check true
[ "${check}" = false ] || exit 0

if [ "${stage}" -le 0 ] && [ "${stop_stage}" -ge 0 ]; then
    log "Stage 0: lists of train, dev and eval, recordings at one sample rate, in ${data}"
    if [ -z "${train}${dumpdir}" ]; then
        train=corpus/splits/train.txt dev=corpus/splits/dev.txt eval=corpus/splits/eval.txt
    elif [ -n "${dumpdir}" ]; then
        read -r one two three <<< "${sets}"
        train=${dumpdir}/${one} dev=${dumpdir}/${two} eval=${dumpdir}/${three}
    fi
    [ "${same_speakers}" = true ] && apart=--same-speakers || apart=
    give --train "${train}"
    give --dev "${dev}"
    give --eval "${eval}"
    python3 local/data_prep.py ${given[@]+"${given[@]}"} ${apart} --config "${train_config}" --out "${data}"
fi
[ "${stop_stage}" -ge 1 ] || exit 0
mkdir -p "${data}" "${expdir}"
data=$(cd "${data}" && pwd -P) expdir=$(cd "${expdir}" && pwd -P)
if [ -z "${corpus_name}" ] && [ -f "${data}/raw/tr_no_dev/utt2spk" ]; then
    corpus_name=$(cut -d ' ' -f 2- "${data}/raw/tr_no_dev/utt2spk" | sort -u)
    [[ "${corpus_name}" != *$'\n'* ]] || corpus_name="many voices"
fi
exec "${shared}/run.sh" --corpus_name "${corpus_name:-many voices}" --stage "$((stage > 1 ? stage : 1))" --stop_stage "${stop_stage}" \
    --dumpdir "${data}" --expdir "${expdir}" "${options[@]}"
