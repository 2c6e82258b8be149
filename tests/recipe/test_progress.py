"""The short lines of the training's progress, from lines as ESPnet's trainer writes them."""

import signal
import subprocess
import sys
from pathlib import Path

PROGRESS = Path(__file__).parents[2] / "egs" / "ljspeech" / "voc1" / "local" / "progress.py"
LOG = """[vm] 2026-01-01 (trainer:810) INFO: 2epoch:train:3-4batch: nll=-0.864bits=16.2, stft=1.7e+01, \
mel=4.678, grad_norm=11.947clip=0.000e+00, train_time=0.036
[vm] (trainer:392) INFO: 2epoch results: [train] nll=0.876, time=0.12 seconds, [valid] nll=0.908, stft=13.6, time=0.07 s
[vm] (trainer:300) INFO: 3/4epoch started. Estimated time to finish: 2 minutes and 3.5 seconds
[vm] nothing worth a look
"""


def test_lines_are_short_and_the_log_is_whole(tmp_path):
    out = subprocess.run(
        [sys.executable, PROGRESS, tmp_path / "log"], input=LOG, text=True, capture_output=True, check=True
    )
    assert out.stdout.splitlines() == [
        "  2epoch:train:3-4batch  nll -0.864  stft 1.7e+01  mel 4.678  grad_norm 11.947  0.036 s/step",
        "  2epoch, dev: nll 0.908, stft 13.6",
        "  3/4epoch started, estimated time to finish: 2 minutes and 3.5 seconds",
    ]
    assert (tmp_path / "log").read_text() == LOG


def test_a_run_that_trains_nothing_says_so(tmp_path):
    end = "WARNING: The training has already reached at max_epoch: 3\nINFO: The training was finished at 2 epochs \n"
    for given, count in ((end, 1), (f"INFO: 2/2epoch started\n{end}", 0)):
        command = [sys.executable, PROGRESS, tmp_path / "log"]
        out = subprocess.run(command, input=given, text=True, capture_output=True, check=True)
        assert out.stdout.count(f"nothing was trained: {tmp_path} has reached max_epoch 2 already") == count


def test_ctrl_c_leaves_no_traceback(tmp_path, interruptible):
    command = [sys.executable, PROGRESS, tmp_path / "log"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as shown:
        shown.stdin.write(b"INFO: 1/2epoch started\n")
        shown.stdin.flush()
        shown.stdout.readline()  # it is at work
        shown.send_signal(signal.SIGINT)
        assert shown.wait(timeout=20) == 0 and shown.stderr.read() == b""
