"""The bench measures what it says: every system, length and batch, the first round left out."""

import json

import pytest
import torch

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.evaluation import bench

CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)


@pytest.fixture
def vocoder() -> Vocoder:
    return Vocoder(MelGlow(n_mels=20, hop_length=64, n_flows=2, channels=4, n_layers=2), CONVENTION)


def test_every_combination_is_timed_in_interleaved_rounds(vocoder, monkeypatch):
    calls, clock = [], iter(range(1000))
    record = {n: lambda mel, n=n, **_: calls.append((n, tuple(mel.shape))) for n in ("MelGlow", "b")}
    monkeypatch.setattr(vocoder, "forward", record["MelGlow"])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    timings = bench.run(vocoder, lengths=[0.1, 0.2], batches=[1, 3], against={"b": record["b"]}, repeats=2)
    assert [(t.system, t.seconds, t.batch) for t in timings] == [
        (n, s, b) for s in (0.1, 0.2) for b in (1, 3) for n in ("MelGlow", "b")
    ]
    assert [name for name, _ in calls[:6]] == ["MelGlow", "b"] * 3
    assert calls[0][1] == (1, 20, round(0.1 * 22_050 / 64))
    audio = 3 * round(0.2 * 22_050 / 64) * 64 / 22_050
    assert timings[-1].median == 1 and timings[-1].rtf == pytest.approx(1 / audio)


def test_percentiles_and_ratios():
    times = [1.0, 2.0, 3.0, 4.0, 10.0]
    used = bench.Resources()
    one, other = bench._summary("a", 1, 1, times, 2.0, used), bench._summary("b", 1, 1, [6.0], 2.0, used)
    assert (one.median, one.p10, one.p90, one.rtf) == (3.0, 1.0, 10.0, 1.5)
    assert bench.table([one, other]).splitlines()[2].split()[-3:] == ["2.00", "-", "-"]


def test_resources_count_operations_and_what_is_alive_at_once():
    with torch.no_grad(), bench.Resources() as used:
        x = torch.zeros(256, 1024)  # 1 MiB
        for _ in range(10):
            y = x.view(-1) + 1  # one more at a time, besides the one that it replaces
        del y
    assert used.operations == 11
    assert used.peak == 3 * 2**20


def test_onnx_gives_the_same_audio(vocoder):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    mel = torch.randn(2, 20, 9)
    torch.testing.assert_close(bench.onnx(vocoder)(mel), vocoder(mel, seed=0), rtol=0, atol=1e-4)


def test_the_command_prints_and_writes(vocoder, tmp_path, capsys):
    from melglow_plugin.cli import main

    pytest.importorskip("matplotlib")
    vocoder.save_pretrained(tmp_path / "model")
    threads = torch.get_num_threads()
    options = ["--lengths", "0.1", "--batches", "1", "--repeats", "1", "--against", "waveglow-64", "--threads", "1"]
    assert main(["bench", "--checkpoint", str(tmp_path / "model"), "-o", str(tmp_path / "out"), *options]) == 0
    torch.set_num_threads(threads)
    assert "waveglow-64" in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert {t["system"] for t in content["timings"]} == {"MelGlow", "waveglow-64"}
    assert content["machine"]["threads"] == 1 and (tmp_path / "out" / "bench.png").stat().st_size > 1000
