#!/usr/bin/env python3
"""The pretrained model adapted to other mels, without training, on crops of the bundled recordings.

    python benchmarks/adaptation.py

Each crop is synthesized from its own mel in each convention. Nats per sample of the recording and, of the sample
refined once, the multi-resolution STFT distance from the recording.
"""

import argparse

import torch
from bundled import CLIPS

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.files import read_wav
from melglow_plugin.training.crops import cut, wav_and_mel
from melglow_plugin.training.objective import FlowObjective, LossConfig

FRAMES, START = 128, 100
MELS = {
    "0-8000 Hz (WaveGlow, Tacotron 2)": MelConvention.waveglow(),
    "50-7600 Hz": MelConvention.espnet(fmin=50),
    "0-11025 Hz": MelConvention.espnet(fmin=0, fmax=None),
    "Coqui's default, -4 to 4": MelConvention.preset("coqui", 22_050),
    "LVCNet's, 0 to 1": MelConvention.preset("lvcnet", 22_050),
    "64 bins": MelConvention.espnet(n_mels=64),
    "100 bins": MelConvention.espnet(n_mels=100),
    "Vocos', HTK, 100 bins": MelConvention.preset("vocos", 22_050),
    "HiFi-GAN's, half a hop later": MelConvention.hifigan(),
    "constant-memory-waveglow's, power": MelConvention.preset("constant_memory", 22_050),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    args = parser.parse_args()
    vocoder = Vocoder.from_pretrained(pretrained_model())
    wavs = [read_wav(path, vocoder.sample_rate) for path in CLIPS[: args.clips]]
    print("| mel | nats per sample | STFT distance |\n| --- | --- | --- |")
    for name, convention in {"its own": vocoder.convention, **MELS}.items():
        flow = vocoder.adapted(convention).flow
        wav, mel = wav_and_mel(torch.stack([cut(w, convention, FRAMES, START) for w in wavs]), convention, FRAMES)
        with torch.no_grad():
            objective = FlowObjective(convention, LossConfig(refine=1))
            _, stats = objective(flow, wav, mel, generator=torch.Generator().manual_seed(0))
        print(f"| {name} | {stats['nll']:.3f} | {stats['stft']:.3f} |")


if __name__ == "__main__":
    main()
