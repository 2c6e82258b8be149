#!/usr/bin/env python3
"""The released voice for Coqui TTS: its own files for `tts`, `tts-server` and TTS.api.

    python fastpitch.py export exp/voice                            # model.pth and config.json
    python fastpitch.py mels ../tts1/conf/sentences.csv -o exp/mels     # KEY.npy, (80, F), of lines of KEY|text
    python fastpitch.py mels data/eval.csv --teacher data -o exp/teacher    # with the recordings' durations and F0
    python fastpitch.py release exp/fastpitch-*/checkpoint_{5000,5250}.pth --data data -o FOLDER

A released folder holds config.json and model.safetensors: nothing in it can execute.
"""

import argparse
import json
from pathlib import Path

from melglow_plugin.processor import prepare

prepare()  # before torch is imported

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from TTS.config import load_config
from TTS.tts.models.forward_tts import ForwardTTS

from melglow_plugin.cli.shared import note_inputs, run_script
from melglow_plugin.files import check_output, keyed_lines

ROOT = Path(__file__).resolve().parents[3]
VOICE = ROOT / "pretrained" / "fastpitch_ljspeech"
KEPT = (
    "model", "base_model", "model_args", "audio", "text_cleaner", "use_phonemes", "phonemizer", "phoneme_language",
    "characters", "add_blank", "enable_eos_bos_chars",
)  # fmt: skip
MEANINGS = {"?": ".", "!": ".", **dict.fromkeys("'():;-", ",")}  # what marks do that the corpus hardly has
TABLE = "pos_encoder.pe"  # of sines and cosines: not learned, not released
LAST = "decoder.decoder.postnet"  # the linear layer that gives the mel


def read(voice: Path) -> ForwardTTS:
    """Coqui's model of a released folder."""
    model = ForwardTTS(load_config(voice / "config.json"))
    state = {key: value.float() for key, value in load_file(voice / "model.safetensors").items()}
    model.load_state_dict({TABLE: model.state_dict()[TABLE], **state})
    return model.eval()


def export(voice: Path, out: Path) -> tuple[Path, Path]:
    """Coqui's ``model_path`` and ``config_path`` of a released folder, written to ``out``."""
    note_inputs(voice)
    for name in ("config.json", "model.pth"):
        check_output(out / name)
    model = read(voice)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text((voice / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    torch.save({"model": model.state_dict()}, out / "model.pth")
    return out / "model.pth", out / "config.json"


@torch.inference_mode()
def speak(model: ForwardTTS, text: str) -> torch.Tensor:
    """The mel (M, F), in nats."""
    tokens = torch.tensor([model.tokenizer.text_to_ids(text, language="en")])
    return model.inference(tokens)["model_outputs"][0].T


class Recordings:
    """What align_fastpitch.py wrote: durations, F0 and recordings by their names."""

    def __init__(self, data: Path) -> None:
        self.data = data
        rows = (line.split("|") for line in (data / "durations.csv").read_text().splitlines())
        self.frames = {key: [int(count) for count in row.split()] for key, row in rows}

    def mel(self, model: ForwardTTS, key: str) -> torch.Tensor:
        """Of the recording, (M, F)."""
        return torch.from_numpy(model.ap.melspectrogram(model.ap.load_wav(self.data / "wavs" / f"{key}.wav"))).float()

    @torch.inference_mode()
    def speak(self, model: ForwardTTS, key: str, text: str) -> torch.Tensor:
        """The mel (M, F) of ``text`` with the recording's durations and F0."""
        from train_fastpitch import F0, f0_file

        tokens, frames = model.tokenizer.text_to_ids(text, language="en"), self.frames.get(key, ())
        if len(frames) != len(tokens):
            table = self.data / "durations.csv"
            raise ValueError(f"{table}: {key} has {len(frames)} durations, its text has {len(tokens)} tokens")
        stats = np.load(self.data / F0 / "pitch_stats.npy", allow_pickle=True).item()
        pitch = (np.load(f0_file(self.data, key)) - stats["mean"]) / stats["std"]
        outputs = model(
            torch.tensor([tokens]), torch.tensor([len(tokens)]), torch.tensor([sum(frames)]),
            dr=torch.tensor([frames], dtype=torch.float), pitch=torch.from_numpy(pitch).float()[None, None],
        )  # fmt: skip
        return outputs["model_outputs"][0].T


def match_variance(state: dict[str, torch.Tensor], spoken: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    """Change the last layer so that spoken mels vary as much as those of recordings do; returns the gain of each bin.

    A model trained by regression gives means of what was possible, which move less. Each bin is scaled about its mean
    to the variance of the recordings (Silén et al., "Ways to implement global variance in statistical speech
    synthesis", 2012). Texts of the training would show less of the loss than new ones.

    Args:
        state: of the model; its last layer changes.
        spoken: mels that it speaks, (M, F).
        recorded: those of recordings of the same texts, (M, F).
    """
    mean, gain = spoken.mean(1), recorded.std(1) / spoken.std(1)
    weight, bias = f"{LAST}.weight", f"{LAST}.bias"
    state[weight] = state[weight] * gain[:, None, None]
    state[bias] = state[bias] * gain + mean * (1 - gain)
    return gain


def write(folder: Path, config: dict, state: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    learned = {key: value for key, value in state.items() if key != TABLE}
    half = {key: value.half().contiguous() if value.is_floating_point() else value for key, value in learned.items()}
    save_file(half, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)


def texts_of(file: Path) -> dict[str, str]:
    return {key: row.rpartition("|")[2] for key, (_, row) in keyed_lines(file, "|").items()}


def release(args: argparse.Namespace) -> None:
    note_inputs(args.checkpoints[0])
    for name in ("config.json", "model.safetensors"):
        check_output(args.output / name)
    states = [torch.load(file, map_location="cpu", weights_only=True)["model"] for file in args.checkpoints]
    state = {
        key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value
        for key, value in states[0].items()
    }
    config = load_config(args.checkpoints[0].parent / "config.json").to_dict()
    config = {key: config[key] for key in KEPT}
    write(args.output, config, state)
    model = read(args.output)
    index = model.tokenizer.characters.char_to_id
    for mark, like in MEANINGS.items():
        state["emb.weight"][index(mark)] = state["emb.weight"][index(like)]
    if args.data:
        texts, recordings = texts_of(args.data / "dev.csv"), Recordings(args.data)
        spoken = torch.cat([speak(model, text) for text in texts.values()], dim=1)
        gain = match_variance(state, spoken, torch.cat([recordings.mel(model, key) for key in texts], dim=1))
        print(f"standard deviation of recordings: {gain.mean():.3f} of that of spoken mels before")
    write(args.output, config, state)
    print(f"{args.output}: {sum(value.numel() for value in state.values()) / 1e6:.1f} M numbers")


def mels(args: argparse.Namespace) -> None:
    """In the logarithm of base 10 of MelGlow's vocoders."""
    texts = texts_of(args.sentences)
    for key in texts:
        check_output(args.output / f"{key}.npy")
    model = read(args.voice)
    recordings = Recordings(args.teacher) if args.teacher else None
    args.output.mkdir(parents=True, exist_ok=True)
    for key, text in texts.items():
        mel = recordings.speak(model, key, text) if recordings else speak(model, text)
        np.save(args.output / f"{key}.npy", mel.numpy() / np.float32(np.log(10)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", type=Path, default=VOICE, help="released folder")
    commands = parser.add_subparsers(required=True)
    to_coqui = commands.add_parser("export", help="write Coqui's files")
    to_coqui.add_argument("out", type=Path)
    to_coqui.set_defaults(run=lambda args: print(*export(args.voice, args.out)))
    to_mels = commands.add_parser("mels", help="the mels of many sentences")
    to_mels.add_argument("sentences", type=Path)
    to_mels.add_argument("--teacher", type=Path, help="what align_fastpitch.py wrote: its durations and F0 are used")
    to_mels.add_argument("-o", "--output", type=Path, required=True)
    to_mels.set_defaults(run=mels)
    to_folder = commands.add_parser("release", help="the mean of checkpoints as a released folder")
    to_folder.add_argument("checkpoints", type=Path, nargs="+", help="of the trainer; config.json lies beside them")
    to_folder.add_argument("--data", type=Path, help="of align_fastpitch.py: the variance is matched on dev.csv")
    to_folder.add_argument("-o", "--output", type=Path, required=True)
    to_folder.set_defaults(run=release)
    run_script(parser)


if __name__ == "__main__":
    main()
