"""The mel doctor on real recordings: what it recognises, what it advises, and when it doubts."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
import yaml
from conftest import stir

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.cli import main
from melglow_plugin.mel import doctor, mismatch
from melglow_plugin.mel.doctor.known import KNOWN, NORMALISED
from melglow_plugin.mel.mismatch import MISMATCH_THRESHOLD

WAVS = sorted((Path(__file__).parent.parent / "egs/ljspeech/voc1/corpus/wavs").glob("*.flac"))[:24]
SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "voices_cc0"
EIGHT = ("hifigan", "univnet", "espnet", "coqui", "vocos", "constant_memory", "lvcnet", "wg_wavenet")  # the zoo's rows
ESPNET = MelConvention.espnet()
BY_NAME = {known.name: known for known in KNOWN}


def read(path, rate, seconds=6):
    wav, found = soundfile.read(path, dtype="float64")
    wav = wav[: seconds * found]
    return torch.from_numpy(scipy.signal.resample_poly(wav, rate, found) if rate != found else wav).float()


@pytest.fixture(scope="module")
def clip():
    return read(WAVS[0], 22_050)


@pytest.fixture(scope="module")
def statistics():
    frames = torch.cat([ESPNET.extract(read(path, 22_050)) for path in WAVS[:8]], 1)
    return frames.mean(1), frames.std(1)


def diagnosed(path, names, **kwargs):
    """(true name, diagnosis) of one recording under each convention, frames first."""
    wavs = {}
    for name in names:
        c = BY_NAME[name].convention(None, BY_NAME[name].bins)
        wav = wavs.setdefault(c.sample_rate, read(path, c.sample_rate))
        yield name, doctor.diagnose(c.extract(wav).T.numpy(), **kwargs)


def test_eight_conventions_on_24_recordings():
    assert len(WAVS) == 24
    found = [pair for path in WAVS for pair in diagnosed(path, EIGHT)]
    assert len(found) == 8 * 24
    assert np.mean([name == d.name for name, d in found]) >= 0.95
    assert all(d.frames_first and d.known for _, d in found)
    for name, d in found:
        if name == d.name:
            assert d.convention == BY_NAME[name].convention(None, BY_NAME[name].bins)
    certain = [name == d.name for name, d in found if d.probability > 0.9]
    assert len(certain) > 100 and np.mean(certain) >= 0.98  # what it says to be sure of, is so


def test_the_default_model_s_mel_is_known_and_its_edges_are_noted(clip):
    universal = BY_NAME["espnet, 0 to 8000 Hz"].convention(None, 80)
    assert universal == MelConvention.from_file(Path(__file__).parent.parent / "pretrained/melglow_universal")
    found = doctor.diagnose(universal.extract(clip))
    assert found.convention == universal and "only a recording distinguishes" in found.text()
    sure = doctor.diagnose(universal.extract(clip), clip, 22_050)
    assert sure.convention == universal and "only a recording" not in sure.text()


@pytest.mark.skipif(not SHARED.is_dir(), reason="other voices are not here")
def test_other_voices_are_recognised_too():
    paths = [
        path for folder in sorted(p for p in SHARED.iterdir() if p.is_dir()) for path in sorted(folder.glob("*"))[:3]
    ]
    found = [name == d.name for path in paths for name, d in diagnosed(path, EIGHT)]
    assert np.mean(found) >= 0.95


@pytest.mark.parametrize("frames_first", [True, False])
@pytest.mark.parametrize("axes", [0, 1, 2])
def test_layout_is_told_and_leading_axes_do_not_matter(clip, frames_first, axes):
    mel = ESPNET.extract(clip)
    mel = mel.T if frames_first else mel
    d = doctor.diagnose(mel[(None,) * axes])
    assert (d.frames_first, d.frames, d.bins) == (frames_first, ESPNET.n_frames(len(clip)), 80)
    assert ("transpose" in d.text()) == frames_first


def test_a_square_mel_has_a_layout(clip):
    mel = ESPNET.extract(clip)[:, 100:180]
    assert doctor.diagnose(mel).frames_first is False and doctor.diagnose(mel.T).frames_first is True


def test_mean_and_variance_are_seen_and_not_converted_blindly(clip, statistics):
    mean, std = statistics
    d = doctor.diagnose((ESPNET.extract(clip) - mean[:, None]) / std[:, None])
    accepted, advice = d.advice(ESPNET)
    assert d.name == NORMALISED and d.convention is None and not accepted
    assert "mel * std + mean" in advice


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda m: m * 0.6, "scaled"),
        (lambda m: m + 3, "shifted"),
        (lambda m: 10**m, "linear"),
        (lambda m: -m, "turned"),
    ],
)
def test_a_spoilt_mel_is_flagged(clip, change, name):
    d = doctor.diagnose(change(ESPNET.extract(clip)))
    accepted, advice = d.advice(ESPNET)
    assert not d.known and not accepted and "no known convention" in advice and "none that is known" in d.text()
    assert ("no logarithm" in d.text()) == (name == "linear")


@pytest.mark.parametrize("bad", [np.zeros((80, 5)), np.zeros(80), np.zeros((80, 90), int), np.full((80, 90), np.nan)])
def test_what_is_no_mel_is_refused_with_its_shape(bad):
    with pytest.raises(ValueError, match="shape|finite"):
        doctor.diagnose(bad)


# With the recording


@pytest.mark.parametrize("name", ["hifigan", "waveglow", "espnet", "coqui"])
def test_with_the_recording_twins_are_told_apart(clip, name):
    c = BY_NAME[name].convention(22_050, 80)
    d = doctor.diagnose(c.extract(clip[:44_100]), clip[:44_100], 22_050)
    assert d.name == name and d.convention == c and d.probability > 0.9
    assert d.offset == 0 and d.error < 0.01


@pytest.mark.parametrize(
    ("change", "offset"),
    [(lambda m: m[:, 1:], 256), (lambda m: m[:, 2:], 512), (lambda m: torch.cat([m[:, :1], m], 1), -256)],
)
def test_the_frames_offset_is_found(clip, change, offset):
    d = doctor.diagnose(change(ESPNET.extract(clip[:44_100])), clip[:44_100], 22_050)
    accepted, advice = d.advice(ESPNET)
    assert d.name == "espnet" and d.offset == offset and d.error < 0.01
    assert not accepted and str(offset) in advice


def test_an_offset_within_a_hop_is_found_to_an_eighth(clip):
    d = doctor.diagnose(ESPNET.extract(clip[100:44_100]), clip[:44_100], 22_050)
    assert d.name == "espnet" and abs(d.offset - 100) <= 16 and d.error < 0.1


def test_another_hop_is_read_off_the_lengths(clip):
    c = MelConvention.espnet(hop_length=200)
    d = doctor.diagnose(c.extract(clip[:44_100]), clip[:44_100], 22_050)
    assert d.name == "espnet" and d.error < 0.3


def test_a_mel_of_another_recording_is_recognised_by_its_values_alone(clip):
    d = doctor.diagnose(ESPNET.extract(read(WAVS[1], 22_050)), clip, 22_050)
    assert d.name == "espnet" and d.offset is None and "values alone" in d.text()


# Advice


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_the_call_it_names_makes_the_convention_it_found(known):
    code = known.python(None, known.bins)
    assert eval(code, {"MelConvention": MelConvention}) == known.convention(None, known.bins)


@pytest.mark.parametrize(
    ("source", "target", "accepted", "says"),
    [
        ("espnet", ESPNET, True, "fits as it is: vocoder(torch.from_numpy(mel.T))"),
        ("espnet", MelConvention.espnet(log_base=None), True, 'exact conversion: MelConvention.preset("espnet", 22050'),
        ("coqui, dB", MelConvention.coqui({"clip_norm": False}), True, "exact conversion: MelConvention.coqui({"),
        ("coqui, dB", ESPNET, False, "fmin 0.0 -> 80.0; fmax 11025.0 -> 7600.0). Extract it again, adapt the vocoder"),
        (
            "hifigan",
            ESPNET,
            False,
            'training: vocoder.adapted(MelConvention.preset("hifigan", 22050, n_mels=80)), or accept',
        ),
        ("hifigan", MelConvention.waveglow(), False, "error of an approximation (frames 128 samples later: the audio"),
        ("vocos", ESPNET, False, "cannot be converted, extract it again: sample_rate 24000 -> 22050"),
    ],
)
def test_advice_is_true_to_convert(source, target, accepted, says):
    known = BY_NAME[source]
    c = known.convention(None, known.bins)
    mel = c.extract(read(WAVS[0], c.sample_rate)).T.numpy()
    d = doctor.diagnose(mel)
    assert d.name == source
    found, advice = d.advice(target)
    assert found == accepted and says in advice
    if ".convert(" in advice:  # the call works as it stands
        call = d.code + ".convert(" + advice.split(".convert(")[1]
        names = {
            "MelConvention": MelConvention,
            "torch": torch,
            "mel": mel,
            "vocoder": type("V", (), {"convention": target}),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = eval(call, names)
        expected = target.extract(read(WAVS[0], target.sample_rate)[c.frame_offset(target) :])[:, : converted.shape[1]]
        assert ((converted - expected).abs() * target.nats_per_unit).median() < (0.001 if accepted else 0.2)


# The command line


@pytest.fixture
def model(tmp_path):
    Vocoder(stir(MelGlow(channels=4, n_layers=2, n_flows=2)), ESPNET).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_the_command_says_what_to_do(clip, model, tmp_path, capsys):
    np.save(tmp_path / "x.npy", MelConvention.preset("espnet", log_base=np.e).extract(clip[:66_150]).T.numpy())
    soundfile.write(tmp_path / "x.wav", clip[:66_150].numpy(), 22_050, subtype="FLOAT")
    picture = tmp_path / "new" / "x.png"
    arguments = [str(tmp_path / "x.npy"), "--wav", str(tmp_path / "x.wav"), "--model", model, "--plot", str(picture)]
    assert main(["doctor", *arguments]) == 0
    said = capsys.readouterr().out
    for words in ("frames first", "natural logarithm", "espnet, ln", "80 to 7600 Hz", "fits after an exact conversion"):
        assert words in said
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000


def test_a_mel_that_the_vocoder_cannot_speak_is_status_2(clip, model, tmp_path, capsys):
    np.save(tmp_path / "x.npy", MelConvention.hifigan().extract(clip).numpy())
    assert main(["doctor", str(tmp_path / "x.npy"), "--model", model]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "x.npy" in error and "fmin 0.0 -> 80.0" in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to look at"), (["no.npy"], "no.npy"), (["text.npy"], "text.npy"), (["short.npy"], r"(80, 3)"),
        (["x.npy", "--sample-rate", "-5"], "sample_rate -5 is no whole number from 4000 to 1000000 Hz"),
        (["x.npy", "--sample-rate", "0"], "sample_rate 0 is no"),
        (["x.npy", "--sample-rate", "1"], "sample_rate 1 is no"),
        (["x.npy", "--sample-rate", "22050", "--wav", "8k.wav"], "--sample-rate 22050, but 8k.wav has 8000 Hz"),
    ],
)  # fmt: skip
def test_bad_input_is_status_2_and_one_line(arguments, says, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.npy").write_text("no array")
    np.save("short.npy", np.zeros((80, 3)))
    np.save("x.npy", np.random.randn(80, 99))
    soundfile.write("8k.wav", np.zeros(8000), 8000)
    assert main(["doctor", *arguments, "--model", model]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error


ACOUSTIC = {  # file, content, whether it fits ESPnet's log10 from 80 to 7600 Hz, what is said
    "espnet": ("config.yaml", {"feats_extract": "fbank", "feats_extract_conf": {"fs": 22_050}}, True, "same"),
    "espnet 16k": ("exp/tts/config.yaml", {"feats_extract_conf": {"fs": 16_000}}, False, "sample_rate 16000 -> 22050"),
    "coqui": (
        "config.json",
        {"model": "glow_tts", "audio": {"num_mels": 80, "fft_size": 1024, "mel_fmin": 80, "mel_fmax": 7600}},
        True, "converted exactly",
    ),
    "coqui recipe": (
        "config.json", {"model": "tacotron2", "audio": {"num_mels": 80, "fft_size": 1024, "log_func": "np.log",
                                                        "spec_gain": 1, "signal_norm": False, "mel_fmax": 8000}},
        False, "fmax 8000.0 -> 7600.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ACOUSTIC)
def test_two_models_are_compared_field_by_field(case, model, tmp_path, capsys):
    name, content, fits, says = ACOUSTIC[case]
    path = tmp_path / "acoustic" / name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))
    option = ["--coqui", str(path)] if "coqui" in case else ["--espnet", str(tmp_path / "acoustic")]
    assert main(["doctor", *option, "--model", model]) == (0 if fits else 2)
    out, err = capsys.readouterr()
    assert ("they fit" in out) == fits and says in (out if fits else err)
    for field in ("sample_rate", "hop_length", "fmin", "fmax", "mel_scale"):
        assert f"\n{field} " in out


def test_the_table_names_each_kind_of_difference():
    fits, table = doctor.compare(replace(ESPNET, fmin=0.0, n_fft=2048, log_base=2.0), ESPNET)
    rows = {line.split()[0]: line for line in table.splitlines()}
    assert not fits and "approximately at best" in rows["fmin"] and "converted exactly" in rows["log_base"]
    assert rows["n_fft"].endswith("DOES NOT FIT") and rows["fmax"].endswith("same")


# The alarm


@pytest.fixture
def alarmed(statistics, monkeypatch):
    monkeypatch.setattr(mismatch, "_warned", False)
    flow = stir(MelGlow(channels=2, n_layers=1, n_flows=1), 0.01)
    flow.set_mel_statistics(*statistics)
    return Vocoder(flow, ESPNET)


WRONG = {
    "ln": replace(ESPNET, log_base=np.e),
    "dB": replace(ESPNET, gain=20.0),
    "coqui": MelConvention.coqui(),
    "0 to 1": MelConvention.preset("lvcnet"),
    "hifigan": MelConvention.hifigan(),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_mel_warns_once_with_its_numbers(name, alarmed, clip):
    mel = WRONG[name].extract(clip[:55_125])
    with pytest.warns(UserWarning, match=rf"values {mel.min():.2f} to {mel.max():.2f}.*melglow doctor") as said:
        alarmed(mel, seed=0)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alarmed(mel, seed=0)


def test_right_mels_do_not_warn(alarmed):
    wavs = [read(path, 22_050, 4) for path in WAVS[8:20]]
    if SHARED.is_dir():
        wavs += [
            read(path, 22_050, 4)
            for folder in SHARED.iterdir()
            if folder.is_dir()
            for path in sorted(folder.glob("*"))[:4]
        ]
    mismatches = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wav in wavs:
            alarmed._alarm.calls = 0
            mismatches.append(alarmed.mel_mismatch(ESPNET.extract(wav)))
            alarmed(ESPNET.extract(wav)[:, :200], seed=0)
            alarmed(ESPNET.extract(torch.zeros(44_100)), seed=0)  # silence is no alarm
    mismatches = np.array(mismatches)
    assert np.nanmax(mismatches) < MISMATCH_THRESHOLD and np.isfinite(mismatches).sum() >= 12


def test_padding_and_models_without_statistics_have_no_mismatch(alarmed, clip):
    mel = ESPNET.extract(clip)[:, :250]
    padded = torch.stack([torch.cat([mel, torch.full((80, 50), 50.0)], 1), torch.zeros(80, 300)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alarmed(padded, [250, 60], seed=0)
    bare = Vocoder(stir(MelGlow(channels=2, n_layers=1, n_flows=1), 0.01), ESPNET)
    assert np.isnan(bare.mel_mismatch(mel)) and np.isnan(alarmed.mel_mismatch(mel[:, :100]))


def test_the_mismatch_is_that_of_one_mel(alarmed, clip):
    mel = ESPNET.extract(clip)
    assert alarmed.mel_mismatch(mel[None]) == alarmed.mel_mismatch(mel)
    with pytest.raises(ValueError, match=r"mel is a batch of 2, of shape \(2, 80, \d+\); wanted one mel \(80, F\)"):
        alarmed.mel_mismatch(torch.stack([mel, mel + 9]))
