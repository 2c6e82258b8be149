"""Loss of a model at another sample rate, begun from one of the old rate or from nothing, in the same few steps.

    python benchmarks/rate_adaptation.py RECORDINGS... -o benchmarks/results/rate_adaptation.json

RECORDINGS: folders or lists of recordings of 24 kHz or more. Likelihood and spectral terms, no discriminators.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from melglow_plugin.checkpoint.adapt import adapted
from melglow_plugin.checkpoint.folder import load
from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.melglow import MODELS, architecture
from melglow_plugin.training.corpus_voices import read_source
from melglow_plugin.training.crops import segment_samples, wav_and_mel
from melglow_plugin.training.device_corpus import DeviceCorpus
from melglow_plugin.training.objective import FlowObjective, LossConfig
from melglow_plugin.training.variation import VariationConfig

FRAMES, BATCH = 32, 4  # of a crop; crops
LOSS = LossConfig(stft=4.0, mel=4.0, refine=1)


def main() -> None:
    """Train both, print and write their losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    start, target = load(pretrained_model(MelConvention.espnet())), MelConvention.preset("vocos")
    recordings = [each for source in args.recordings for each in read_source(source)]
    size = segment_samples(target, FRAMES)
    corpus = DeviceCorpus(recordings, target.sample_rate, size, VariationConfig(), 1.0, torch.device("cpu"), 0)
    curves = {
        "adapted": curve(adapted(start.flow, start.convention, target, other_rate=True), target, corpus, args),
        "from_nothing": curve(fresh(start.flow, target, corpus), target, corpus, args),
    }
    settings = {"steps": args.steps, "lr": args.lr, "batch": BATCH, "frames": FRAMES, "loss": asdict(LOSS)}
    args.out.write_text(json.dumps({"settings": settings, "recordings": len(recordings), **curves}, indent=1) + "\n")
    for name, values in curves.items():
        print(name, {step: values[step] for step in (0, len(values) - 1)})


def fresh(like, target: MelConvention, corpus: DeviceCorpus):
    """An untrained flow of the same sizes that knows its mel."""
    torch.manual_seed(0)
    flow = MODELS[architecture(like)](**{**like.hyperparameters, "n_mels": target.n_mels})
    flow.set_mel_bands(*target.band_powers())
    mels = torch.cat([target.extract(corpus.crops(step, 8)) for step in range(8)]).movedim(1, 0).flatten(1)
    flow.set_mel_statistics(mels.mean(1), mels.std(1))
    return flow


def curve(flow, target: MelConvention, corpus: DeviceCorpus, args) -> list[dict[str, float]]:
    """Likelihood and distances of each step's crops before its update, and once after the last, on the first crops."""
    objective = FlowObjective(target, LOSS)
    optimizer = torch.optim.AdamW(flow.train().parameter_groups(args.lr, 2.0), betas=(0.8, 0.99), weight_decay=0.0)
    values = []
    for step in (*range(args.steps), 0):
        torch.manual_seed(step)
        wav, mel = wav_and_mel(corpus.crops(step, BATCH), target, FRAMES)
        loss, stats = objective(flow, wav, mel)
        values.append({name: round(float(stats[name]), 4) for name in ("nll", "stft", "mel")})
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 60.0)
        optimizer.step()
    return values


if __name__ == "__main__":
    main()
