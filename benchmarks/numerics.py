#!/usr/bin/env python3
"""Inversion errors of the released model by precision and length, and 2,000 steps of a small model in bf16.

    OMP_NUM_THREADS=1 python benchmarks/numerics.py --seconds 1 10 60 --steps 2000

An error is that of the inverse of the latent of ``wav`` against ``wav``, in [-1, 1], both in pieces of 12 s; the
conditioners run in the precision named, the flow's own arithmetic in float32. TF32 needs a GPU and is not run.
"""

import argparse
import json
from pathlib import Path

import torch
from bundled import CLIPS

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
# Largest error allowed anywhere, of a full scale of 1.
LIMITS = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 5e-3}


def recording(seconds: float, sample_rate: int) -> torch.Tensor:
    """The bundled recordings, one behind the other, (T,)."""
    import soundfile

    wavs, needed = [], round(seconds * sample_rate)
    for path in CLIPS:
        wavs.append(torch.from_numpy(soundfile.read(path, dtype="float32")[0]))
        if sum(map(len, wavs)) >= needed:
            break
    return torch.cat(wavs)[:needed]


def inversion(model: str, lengths: list[float]) -> list[dict]:
    """Largest and root-mean-square error for each precision and length."""
    from melglow_plugin import Vocoder

    rows = []
    for name, limit in LIMITS.items():
        vocoder = Vocoder.from_pretrained(model, dtype=getattr(torch, name))
        for seconds in lengths:
            wav = recording(seconds, vocoder.sample_rate)
            wav = wav[: len(wav) // vocoder.hop_length * vocoder.hop_length][None]
            mel = vocoder.convention.extract(wav)[..., : wav.shape[1] // vocoder.hop_length]
            error = vocoder.decode(vocoder.encode(wav, mel), mel) - wav
            rows.append({"conditioner": name, "seconds": seconds, "largest": float(error.abs().max()),
                         "rms": float(error.square().mean().sqrt()), "limit": limit})  # fmt: skip
            print(
                f"| {name} | {seconds:g} | {rows[-1]['largest']:.1e} | {rows[-1]['rms']:.1e} | {limit:.0e} |",
                flush=True,
            )
    return rows


def bf16_training(steps: int) -> dict:
    """Losses and gradient norms of a small model under bf16 autocast: how many of them were not finite."""
    import yaml

    from melglow_plugin.checks import from_dict
    from melglow_plugin.espnet.model import ESPnetVocoderModel
    from melglow_plugin.mel.convention import MelConvention
    from melglow_plugin.model.melglow import MODELS
    from melglow_plugin.training.crops import segment_samples
    from melglow_plugin.training.objective import LossConfig

    conf = yaml.safe_load((ROOT / "conf" / "melglow_tiny.yaml").read_text())
    convention = MelConvention.espnet(**conf["feats_extract_conf"])
    torch.manual_seed(0)
    model = ESPnetVocoderModel(
        MODELS[conf["vocoder"]](**conf["vocoder_conf"]), convention, from_dict(LossConfig, conf["loss_conf"], ""),
        0.99, "bfloat16",
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.flow.parameters(), lr=1e-3)
    wav, size = recording(60, convention.sample_rate), segment_samples(convention, 8)
    model.flow.set_mel_bands(*convention.band_powers())
    model.flow.set_mel_statistics(*(f(convention.extract(wav), 1) for f in (torch.mean, torch.std)))
    first = last = bad = 0
    for step in range(steps):
        starts = torch.randint(len(wav) - size, (2,))
        loss, stats, _ = model(speech=torch.stack([wav[s : s + size] for s in starts]))
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.flow.parameters(), 20.0)
        bad += not bool(torch.isfinite(loss) & torch.isfinite(norm))
        optimizer.step()
        first, last = (float(stats["nll"]) if step == 0 else first), 0.98 * last + 0.02 * float(stats["nll"])
    finite = all(bool(torch.isfinite(p).all()) for p in model.parameters())
    crop = wav[: 128 * convention.hop_length]
    mel = convention.extract(crop)[None, :, :128]
    z, _ = model.best_flow(crop[None], mel)
    error = float((model.best_flow.inverse(z, mel) - crop).abs().max())
    return {"steps": steps, "not finite": bad, "weights finite": finite, "first nll": first, "last nll": last,
            "largest inversion error of the averaged weights": error}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "pretrained" / "melglow_ljspeech"))
    parser.add_argument("--seconds", type=float, nargs="+", default=[1, 10, 60])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for numerics.json")
    args = parser.parse_args()
    print("| conditioner | seconds | largest error | rms | limit |\n| --- | --- | --- | --- | --- |")
    found = {"torch": torch.__version__, "device": "CPU", "inversion": inversion(args.model, args.seconds)}
    found["bf16 training"] = bf16_training(args.steps)
    print(json.dumps(found["bf16 training"], indent=2))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "numerics.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
