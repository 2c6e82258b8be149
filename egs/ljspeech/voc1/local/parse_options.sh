# Sourced, with the script's arguments: --name value sets a variable that the script has given a default, --help prints
# the script's head down to the line "# End of options". The script has a function die.
while [ $# -gt 0 ]; do
    case "$1" in
    --help|-h) sed -n '2,/^# End of options/{/^# End of options/d;p;}' "$0"; exit 0 ;;
    --*)
        name=${1#--}; name=${name//-/_}
        [[ "${name}" =~ ^[a-z_]+$ ]] && [ -n "${!name+set}" ] || die "unknown option $1 (see --help)"
        [ $# -ge 2 ] || die "option $1 has no value"
        printf -v "${name}" '%s' "$2"; shift 2 ;;
    *) die "unexpected argument $1 (see --help)" ;;
    esac
done
