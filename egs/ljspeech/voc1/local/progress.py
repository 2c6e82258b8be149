#!/usr/bin/env python3
"""Copy the trainer's log from stdin to the end of a file, and show one short line for each stretch and epoch."""

import contextlib
import re
import sys
from pathlib import Path

STRETCH = re.compile(r"(\d+epoch:train:\d+-\d+batch): (.*)")
# The trainer leaves out a comma here and there: "nll=0.864bits=16.247".
VALUE = re.compile(r"([a-z][a-z_0-9]*)=([-+]?(?:\d+(?:\.\d+)?(?:e[-+]\d+)?|nan|inf))")
EPOCH = re.compile(r"(\d+epoch) results: .*\[valid\] (.*?), time=")
STARTED = re.compile(r"(\d+/\d+epoch started)(?:\. (Estimated time to finish: .*))?")
FINISHED = re.compile(r"The training was finished at (\d+) epochs")
TROUBLE = re.compile(r"(?:WARNING|ERROR): (.*(?:not finite|Error).*)")


def short(line: str) -> str | None:
    """What is worth a look in one line of the log, or None."""
    if match := STRETCH.search(line):
        values = dict(VALUE.findall(match[2]))
        shown = [f"{k} {values[k]}" for k in ("nll", "stft", "mel", "grad_norm") if k in values]
        return f"  {match[1]}  {'  '.join(shown)}  {values.get('train_time', '?')} s/step"
    if match := EPOCH.search(line):
        return f"  {match[1]}, dev: {match[2].replace('=', ' ')}"
    if match := STARTED.search(line):
        return f"  {match[1]}{f', {match[2][0].lower()}{match[2][1:]}' if match[2] else ''}"
    if match := TROUBLE.search(line):
        return f"  {match[1]}"
    return None


def main() -> None:
    started = False
    with open(sys.argv[1], "a", encoding="utf-8") as log:
        for line in sys.stdin:
            log.write(line)
            log.flush()
            started = started or STARTED.search(line) is not None
            if (end := FINISHED.search(line)) and not started:
                reached = f"{Path(sys.argv[1]).parent} has reached max_epoch {end[1]} already"
                print(f"nothing was trained: {reached} (a larger --max_epoch or another --tag trains)", flush=True)
            if text := short(line):
                print(text, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # the trainer that writes the log has been stopped, too
        main()
