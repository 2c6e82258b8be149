#!/usr/bin/env python3
"""What one setting does to the likelihood: nats per sample on dev over the first steps, beside the default's.

    OMP_NUM_THREADS=1 python benchmarks/ablation.py --corpus DIR --variant lpc_order=0

DIR holds wavs/ and splits/{train,dev}.txt. Every run starts from scratch with the same crops and seed and takes the
likelihood alone; a variant is NAME=VALUE, or several with commas, of the model's hyperparameters or of --options here.
"""

import argparse
import statistics
import time
from pathlib import Path

import soundfile
import torch
import yaml

from melglow_plugin import MelGlow, Vocoder, flow_nll
from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.checks import run_main
from melglow_plugin.files import write_csv
from melglow_plugin.model.kernel_predictor import KernelPredictor
from melglow_plugin.training.crops import dequantised, segment_samples, wav_and_mel

# What a variant may change beside the hyperparameters of MelGlow.
TRAINING = {
    "lr": 4e-4,
    "kernel_lr_ratio": 2.0,
    "frames": 32,
    "batch": 8,
    "sigma": 1.0,
    "dequantise": True,
    "bf16": True,
    "preemphasis": 0.0,  # of the audio, before the flow; its log-determinant is 0, so nats can be compared
    "weight_norm": False,  # of every convolution and linear layer in the couplings' nets
    "predictor": "flow",  # one for each flow, as it is; "all": one for all; "layer": one for each layer of each flow
}
DEFAULT = {"lpc_order": 32}
WARM_UP, DEV_FRAMES, DEV_CROPS = 30, 64, 32


def parse(variant: str) -> dict:
    settings = {}
    for part in filter(None, variant.split(",")):
        name, separator, value = part.partition("=")
        if not separator:
            raise ValueError(f"--variant {variant}: {part} is no NAME=VALUE")
        settings[name] = yaml.safe_load(value)
    return settings


class LayerPredictors(KernelPredictor):
    """A reader and body for each layer, where :class:`KernelPredictor` has one for all of its net."""

    def __init__(self, like: KernelPredictor) -> None:
        taps, channels, out_channels = like.kernel_shape
        width, depth = like.input_conv.out_channels, len(like.residual_convs)
        sizes = (channels, out_channels, like.n_layers, taps, width, depth)
        super().__init__(like.input_conv.in_channels, *sizes)
        self.others = torch.nn.ModuleList(
            KernelPredictor(like.input_conv.in_channels, channels, out_channels, 0, *sizes[3:])
            for _ in self.to_kernel[1:]
        )

    def hidden(self, mel: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return torch.cat([super().hidden(mel, mask), *(other.hidden(mel, mask) for other in self.others)], -1)

    def kernel(self, hidden: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        return super().kernel(hidden.chunk(self.n_layers, -1)[layer], layer)


def change_predictors(flow: MelGlow, to: str) -> None:
    nets = [coupling.net for coupling in flow.couplings]
    for net in nets:
        if to == "all":
            shared = nets[0].kernel_predictor
            net.kernel_predictor.input_conv = shared.input_conv
            net.kernel_predictor.residual_convs = shared.residual_convs
        elif to == "layer":
            net.kernel_predictor = LayerPredictors(net.kernel_predictor)
            net._in_blocks = net._layer_by_layer  # which take one predictor's hidden values
        elif to != "flow":
            raise ValueError(f"predictor {to!r} is none of flow, all, layer")


class Run:
    """One variant, trained step by step."""

    def __init__(self, settings: dict, released: Vocoder, corpus: Path, seed: int) -> None:
        self.training = TRAINING | {k: v for k, v in settings.items() if k in TRAINING}
        architecture = DEFAULT | {k: v for k, v in settings.items() if k not in TRAINING}
        self.convention = released.convention
        torch.manual_seed(seed)
        self.flow = MelGlow(**architecture)
        change_predictors(self.flow, self.training["predictor"])
        self.flow.set_mel_statistics(released.flow.mel_mean, released.flow.mel_std)
        self.flow.set_mel_bands(*self.convention.band_powers())
        if self.training["weight_norm"]:
            for layer in list(self.flow.couplings.modules()):
                # The nets' last layers begin at 0, and have no norm to divide by.
                if isinstance(layer, torch.nn.Conv1d | torch.nn.Linear) and layer.weight.any():
                    torch.nn.utils.parametrizations.weight_norm(layer)
        lr, ratio = self.training["lr"], self.training["kernel_lr_ratio"]
        self.optimizer = torch.optim.Adam(self.flow.parameter_groups(lr, ratio))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.generator = torch.Generator().manual_seed(seed + 2)
        self.train = self._recordings(corpus, "train")
        dev = torch.Generator().manual_seed(5)
        self.dev = self._crops(self._recordings(corpus, "dev"), DEV_CROPS, DEV_FRAMES, dev)

    def step(self, number: int) -> float:
        """Seconds of one training step; ``number`` counts from 1."""
        start = time.perf_counter()
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * min(1, number / WARM_UP)
        batch = self._crops(self.train, self.training["batch"], self.training["frames"], self.generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training["bf16"]):
            loss = self._nll(batch, self.training["frames"], self.training["sigma"], self.training["dequantise"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.flow.parameters(), 20.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start

    @torch.no_grad()
    def score(self) -> float:
        """Nats per sample on dev, under the prior of standard deviation 1 and with the noise of 16 bits."""
        return float(self._nll(self.dev, DEV_FRAMES, 1.0, True))

    def _nll(self, batch: torch.Tensor, frames: int, sigma: float, noisy: bool) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            wav, mel = wav_and_mel(batch, self.convention, frames)
            wav = dequantised(wav, self.generator) if noisy else wav
            wav = torch.cat([wav[:, :1], wav[:, 1:] - self.training["preemphasis"] * wav[:, :-1]], 1)
        return flow_nll(*self.flow(wav, mel), sigma)

    def _recordings(self, corpus: Path, name: str) -> list[torch.Tensor]:
        keys = (corpus / "splits" / f"{name}.txt").read_text().split()[:150]
        wavs = [torch.from_numpy(soundfile.read(corpus / "wavs" / f"{k}.flac", dtype="float32")[0]) for k in keys]
        least = segment_samples(self.convention, max(DEV_FRAMES, self.training["frames"]))
        return [wav for wav in wavs if len(wav) > least]

    def _crops(self, pool: list[torch.Tensor], n: int, frames: int, generator: torch.Generator) -> torch.Tensor:
        samples = segment_samples(self.convention, frames)
        chosen = [pool[int(torch.randint(len(pool), (), generator=generator))] for _ in range(n)]
        starts = [int(torch.randint(len(wav) - samples, (), generator=generator)) for wav in chosen]
        return torch.stack([wav[start : start + samples] for wav, start in zip(chosen, starts, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--variant", action="append", default=[], help="NAME=VALUE[,NAME=VALUE]")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=50, help="steps from one look at dev to the next")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, help="CSV to write")
    args = parser.parse_args()
    released = Vocoder.from_pretrained(pretrained_model())  # for its mel and the mel's statistics
    rows = []
    for variant in ["", *args.variant]:
        run = Run(parse(variant), released, args.corpus, args.seed)
        parameters, times = sum(p.numel() for p in run.flow.parameters()), []
        for number in range(1, args.steps + 1):
            times.append(run.step(number))
            if number % args.every == 0:
                rows.append({
                    "variant": variant or "default", "parameters": parameters, "step": number,
                    "dev_nll": round(run.score(), 4), "seconds_per_step": round(statistics.median(times), 3),
                })  # fmt: skip
        mine = rows[-(args.steps // args.every) :]
        nats = ", ".join(f"{row['dev_nll']:.3f}" for row in mine)
        seconds = mine[-1]["seconds_per_step"]
        print(f"{mine[0]['variant']}: {parameters:,} parameters, {seconds} s a step, dev {nats}", flush=True)
        if args.out:
            write_csv(args.out, rows)


if __name__ == "__main__":
    run_main(main, TypeError)
