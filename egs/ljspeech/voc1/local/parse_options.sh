# Sourced, with the script's arguments: --name value sets a variable that the script's head gives a default, --help prints
# the head, down to the line "# End of options". The script has a function die, first_stage and last_stage if it has
# stages, and may have a function other, which gets the options that it does not know.
names=" $(sed -n '/^# End of options/q;s/^\([a-z_]*\)=.*/\1/p' "$0" | tr '\n' ' ')"

check_value() { # option, its variable, value
    local whole='(0|[1-9][0-9]{0,17})' above='[1-9][0-9]{0,17}' number='([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?'
    local pattern wanted
    case "$2" in
    stage|stop_stage) pattern="-?${whole}" wanted="a whole number" ;;
    ngpu|seed|postfilter_steps) pattern=${whole} wanted="a whole number" ;;
    refine) pattern="(${whole}|resynthesis)?" wanted="a whole number or resynthesis" ;;
    nj|steps|validate_every|batch_size|early_every) pattern=${above} wanted="a whole number above 0" ;;
    max_epoch) pattern="(${above})?" wanted="a whole number above 0" ;;
    seeds) pattern="${whole}( +${whole})*" wanted="a list of whole numbers" ;;
    sigma) pattern=${number} wanted="a number of 0 or more" ;;
    speaker_cap|minutes) pattern="(${number})?" wanted="a number of 0 or more" ;;
    same_speakers|check|likelihood|decode) pattern='true|false' wanted="true or false" ;;
    *) return 0 ;;
    esac
    [[ "$3" =~ ^(${pattern})$ ]] || die "$1 ${3:-''} is not ${wanted}"
}

while [ $# -gt 0 ]; do
    case "$1" in
    --help|-h) sed -n '2,/^# End of options/{/^# End of options/d;p;}' "$0"; exit 0 ;;
    --*)
        name=${1#--}; name=${name//-/_}
        [[ "${names}" == *" ${name} "* ]] || declare -F other > /dev/null || die "unknown option $1 (see --help)"
        [ $# -ge 2 ] || die "option $1 has no value"
        if [[ "${names}" == *" ${name} "* ]]; then
            check_value "$1" "${name}" "$2"
            printf -v "${name}" '%s' "$2"
        else
            other "$1" "$2"
        fi
        shift 2 ;;
    *) die "unexpected argument $1 (see --help)" ;;
    esac
done

if [[ "${names}" == *" stop_stage "* ]]; then
    [ "${stage}" -le "${stop_stage}" ] || die "--stage ${stage} is behind --stop_stage ${stop_stage}: no stage to run"
    [ "${stage}" -le "${last_stage}" ] && [ "${stop_stage}" -ge "${first_stage}" ] \
        || die "--stage ${stage} --stop_stage ${stop_stage}: the stages are ${first_stage} to ${last_stage}"
fi
