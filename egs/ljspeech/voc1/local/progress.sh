#!/usr/bin/env bash
# Reads the trainer's log, appends it to a file, and shows one short line for each logged stretch and epoch.
#   trainer 2>&1 | local/progress.sh LOG
tee -a "$1" | awk '
    function value(name,   at) { return match($0, "[^a-z_]" name "=-?[0-9.e+-]+") ? substr($0, RSTART + length(name) + 2, RLENGTH - length(name) - 2) : "-" }
    /batch: / && match($0, /[0-9]+epoch:train:[0-9]+-[0-9]+batch/) {
        printf "  %s  nll %s  stft %s  mel %s  lr %s  %s s/step\n", substr($0, RSTART, RLENGTH), value("nll"), value("stft"), value("mel"), value("optim0_lr0"), value("train_time"); fflush()
    }
    /epoch results:/ { sub(/.*INFO: /, ""); dev = substr($0, index($0, "[valid]")); sub(/, time=.*/, "", dev); split($0, e, " "); print "  " e[1] " " dev; fflush() }
    /WARNING.*not finite/ { print "  " $0; fflush() }
'
