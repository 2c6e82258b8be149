#!/usr/bin/env python3
"""The released voice for ESPnet: its own files for every command of ESPnet, or a sentence spoken at once.

    python voice.py export exp/voice                         # model.pth, config.yaml and the statistics
    python voice.py speak "The office of marshal." -o out.wav
    python voice.py mels conf/sentences.csv -o exp/mels      # KEY.npy, (80, F), of lines of KEY|text
    python voice.py mels eval.csv --teacher data/eval -o exp/teacher   # with the recordings' durations, F0 and energy

After ``export``, with path.sh sourced:

    python -m melglow_plugin.run -m espnet2.bin.tts_inference --train_config exp/voice/config.yaml \\
        --model_file exp/voice/model.pth --vocoder_file pretrained/melglow_ljspeech ...
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
VOICE, VOCODER = ROOT / "pretrained" / "fastspeech2_ljspeech", ROOT / "pretrained" / "melglow_ljspeech"
STATISTICS = ("normalize", "pitch_normalize", "energy_normalize")


def export(voice: Path, out: Path) -> tuple[Path, Path]:
    """ESPnet's ``train_config`` and ``model_file`` of a released folder, written to ``out``."""
    import torch
    import yaml
    from safetensors.torch import load_file

    from melglow_plugin.files import check_output, note_input

    for file in voice.glob("*"):
        note_input(file)
    for file in ("config.yaml", "model.pth", *(f"{name}.npz" for name in STATISTICS)):
        check_output(out / file)
    config = yaml.safe_load((voice / "config.yaml").read_text(encoding="utf-8"))
    state = {key: value.float() if value.is_floating_point() else value
             for key, value in load_file(voice / "model.safetensors").items()}  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for name in STATISTICS:
        path = out.resolve() / f"{name}.npz"
        mean, std = (state[f"{name}.{part}"].double().numpy() for part in ("mean", "std"))
        np.savez(path, count=1, sum=mean, sum_square=std**2 + mean**2)
        config[f"{name}_conf"]["stats_file"] = str(path)
    (out / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False), encoding="utf-8")
    torch.save(state, out / "model.pth")
    return out / "config.yaml", out / "model.pth"


def find_espeak() -> None:
    """Tell ESPnet's phonemizer where espeakng-loader keeps eSpeak NG, unless the environment says it."""
    import espeakng_loader

    # ESPnet imports g2p_en where it is, which asks the network for NLTK's data, and says so; eSpeak NG needs neither.
    sys.modules.setdefault("g2p_en", None)
    os.environ.setdefault("PHONEMIZER_ESPEAK_LIBRARY", espeakng_loader.get_library_path())
    os.environ.setdefault("ESPEAK_DATA_PATH", espeakng_loader.get_data_path())


def text2speech(
    voice: Path = VOICE, vocoder: Path = VOCODER, refine: int | str | None = None, sigma: float = 0.6, **options
):
    """ESPnet's ``Text2Speech`` with the released acoustic model and vocoder.

    Args:
        refine: rounds of refinement, or "resynthesis"; None: the vocoder's own.
        sigma: standard deviation of z.
        options: more of ``Text2Speech``, as ``speed_control_alpha``.
    """
    from melglow_plugin import Vocoder
    from melglow_plugin.espnet import text2speech
    from melglow_plugin.espnet.vocoder import EspnetVocoder

    find_espeak()
    with contextlib.redirect_stderr(io.StringIO()):  # its import says that flash-attn is not there
        import espnet2.bin.tts_inference  # noqa: F401
    with tempfile.TemporaryDirectory() as folder:
        train_config, model_file = export(voice, Path(folder))
        tts = text2speech(train_config=train_config, model_file=model_file, **options)
    melglow = Vocoder.from_pretrained(vocoder)
    if refine is not None:
        melglow.refine = refine
    tts.vocoder = EspnetVocoder(melglow, sigma=sigma)
    tts.vocoder.set_acoustic_model(tts.feats_extract)
    return tts


def _refinement(given: str) -> int | str:
    return int(given) if given.isdecimal() else given


def speak(args: argparse.Namespace) -> None:
    from melglow_plugin.files import check_output, write_wav

    if not args.text.strip():
        raise ValueError("no text to speak")
    check_output(args.output)
    tts = text2speech(args.voice, args.vocoder, args.refine, args.sigma, speed_control_alpha=args.slower)
    wav = tts(args.text)["wav"]
    write_wav(args.output, wav, tts.fs)
    print(f"{args.output}: {len(wav) / tts.fs:.2f} s")


def recorded(data: Path, rate: int) -> Callable[[str], dict]:
    """What ``Text2Speech`` takes of a recording of a data folder for teacher forcing, by its name."""
    from melglow_plugin.files import read_scp, read_table, read_wav

    paths, durations = read_scp(data / "wav.scp"), read_table(data / "durations")
    return lambda key: {
        "speech": read_wav(Path(paths[key]), rate),
        "durations": np.array(durations[key].split(), dtype=int),
    }


def mels(args: argparse.Namespace) -> None:
    from melglow_plugin.files import check_output, keyed_lines

    texts = keyed_lines(args.sentences, "|")
    for key in texts:
        check_output(args.output / f"{key}.npy")
    tts = text2speech(args.voice, use_teacher_forcing=args.teacher is not None)
    tts.vocoder = None
    given = recorded(args.teacher, tts.fs) if args.teacher else lambda key: {}
    args.output.mkdir(parents=True, exist_ok=True)
    for key, (_, text) in texts.items():
        np.save(args.output / f"{key}.npy", tts(text, **given(key))["feat_gen_denorm"].T.numpy())


def main() -> None:
    from melglow_plugin.cli.shared import run_script

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", type=Path, default=VOICE, help="folder of the acoustic model")
    commands = parser.add_subparsers(required=True)
    to_espnet = commands.add_parser("export", help="write ESPnet's files")
    to_espnet.add_argument("out", type=Path)
    to_espnet.set_defaults(run=lambda args: print(*export(args.voice, args.out)))
    to_wav = commands.add_parser("speak", help="speak a sentence")
    to_wav.add_argument("text")
    to_wav.add_argument("-o", "--output", type=Path, default=Path("speak.wav"))
    to_wav.add_argument("--vocoder", type=Path, default=VOCODER, help="folder of the vocoder")
    to_wav.add_argument("--refine", type=_refinement, help="rounds of refinement, or resynthesis (the vocoder's own)")
    to_wav.add_argument("--sigma", type=float, default=0.6, help="standard deviation of z (0.6)")
    to_wav.add_argument("--slower", type=float, default=1.0, help="factor of all durations (1.0)")
    to_wav.set_defaults(run=speak)
    to_mels = commands.add_parser("mels", help="the mels of many sentences")
    to_mels.add_argument("sentences", type=Path)
    to_mels.add_argument("--teacher", type=Path, help="data folder of the recordings: their durations, F0 and energy")
    to_mels.add_argument("-o", "--output", type=Path, required=True)
    to_mels.set_defaults(run=mels)
    run_script(parser)


if __name__ == "__main__":
    main()
