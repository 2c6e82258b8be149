"""Training of a model's postfilter: from the spectra of its samples to those of the recordings."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melglow_plugin.inference.arguments import filled_to_frames
from melglow_plugin.inference.frames import framed
from melglow_plugin.inference.magnitudes import Magnitudes
from melglow_plugin.inference.refine import constants
from melglow_plugin.inference.resynthesis import frames_per_hop
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.melglow import architecture, build
from melglow_plugin.model.postfilter import Postfilter

FLOOR = 0.01  # magnitudes below it count little: a sine of -88 dB of full scale, with 1024 samples of a Hann window
CROP_FRAMES, BATCH = 40, 4  # of the mel, at least; crops a step
LEARNING_RATE = 2e-3  # at the start; by a cosine to 0
REPORT_EVERY = 500  # steps
# Of the change that gives the least error, which is a mean and too smooth: a part of it scores better than all of it.
SHARE = 0.7


@dataclass
class Example:
    """A sample of the model and its recording, (F * hop_length,) each, and the mel (M, F) of both."""

    sample: Tensor
    recording: Tensor
    mel: Tensor


def with_postfilter(flow: MelModel, channels: int) -> MelModel:
    """A copy of the model with a postfilter of that width, untrained, in the place of any that it has.

    Raises:
        ValueError: there can be none of that width.
    """
    new = build(architecture(flow), {**flow.hyperparameters, "postfilter_channels": channels}).to(flow.mel_mean)
    new.load_state_dict({k: v for k, v in flow.state_dict().items() if not k.startswith("postfilter.")}, strict=False)
    return new.train(flow.training)


def crop_frames(convention: MelConvention) -> int:
    """Frames of the mel in a crop: in at least half of them no frame of the STFT reaches beyond the crop."""
    return max(CROP_FRAMES, 4 * (_reach(convention) + 2))


def _reach(convention: MelConvention) -> int:
    """Frames of the mel to the farther end of a frame of the STFT."""
    return -(-max(convention.context, convention.n_fft - convention.context) // convention.hop_length)


def examples(
    synthesize: Callable[[Tensor, int], Tensor], wavs: Iterable[Tensor], convention: MelConvention
) -> list[Example]:
    """An :class:`Example` of each of ``wavs`` (T,) that is as long as a crop.

    Args:
        synthesize: the model's own sample (F * hop_length,) of a mel (M, F) and a seed.
    """
    found = []
    for seed, wav in enumerate(wavs):
        if convention.n_frames(len(wav)) >= crop_frames(convention):
            mel = convention.extract(wav)
            wav = filled_to_frames(wav[None], mel[None], convention.hop_length)[0]
            found.append(Example(synthesize(mel, seed), wav, mel))
    return found


def fit(
    postfilter: Postfilter,
    data: list[Example],
    convention: MelConvention,
    steps: int,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> float:
    """Train a postfilter in place, on crops of ``data``, to the least mean squared error of log magnitudes.

    At the end its output is multiplied by :data:`SHARE`.

    Returns:
        The mean squared error of the last steps to that without a postfilter.

    Raises:
        ValueError: ``data`` is empty.
    """
    if not data:
        frames = crop_frames(convention)
        seconds = frames * convention.hop_length / convention.sample_rate
        raise ValueError(f"no recording has {frames} frames of the mel, {seconds:.2f} s")
    drawn = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(postfilter.requires_grad_(True).parameters(), LEARNING_RATE)
    errors, ratio = [], math.nan
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
        error, before = _errors(postfilter, _batch(data, drawn, convention), convention)
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(postfilter.parameters(), 1.0)
        optimizer.step()
        errors.append(torch.stack([error.detach(), before]))
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == steps:
            mean, without = torch.stack(errors).mean(0).tolist()
            report(f"step {step + 1} of {steps}: error {mean:.4f}, without a postfilter {without:.4f}")
            errors, ratio = [], mean / without
    postfilter.requires_grad_(False)
    for parameter in postfilter.output.parameters():
        parameter.mul_(SHARE)
    return ratio


def _batch(data: list[Example], drawn: torch.Generator, convention: MelConvention) -> tuple[Tensor, Tensor, Tensor]:
    """Samples and recordings (B, T), and mels (B, M, F), of random crops; a recording is drawn by its length."""
    hop, frames, crops = convention.hop_length, crop_frames(convention), []
    lengths = torch.tensor([float(example.mel.shape[-1]) for example in data])
    for number in torch.multinomial(lengths, BATCH, replacement=True, generator=drawn).tolist():
        example = data[number]
        start = int(torch.randint(example.mel.shape[-1] - frames + 1, (), generator=drawn))
        stop = start + frames
        wavs = (wav[start * hop : stop * hop] for wav in (example.sample, example.recording))
        crops.append((*wavs, example.mel[:, start:stop]))
    samples, recordings, mels = (torch.stack(parts) for parts in zip(*crops, strict=True))
    return samples, recordings, mels


def _errors(
    postfilter: Postfilter, batch: tuple[Tensor, Tensor, Tensor], convention: MelConvention
) -> tuple[Tensor, Tensor]:
    """Mean squared errors of log magnitudes, () each, with the postfilter and without."""
    samples, recordings, mels = batch
    times = frames_per_hop(convention)
    magnitudes, window = Magnitudes(convention, postfilter, times), constants(convention, mels.dtype, mels.device)[0]
    hop, count = convention.hop_length // times, times * mels.shape[-1]
    given, wanted = (
        torch.fft.rfft(framed(wav, convention, count, None, hop) * window) for wav in (samples, recordings)
    )
    log_magnitude, target = magnitudes.towards_mel(given, mels)
    change = postfilter(log_magnitude, magnitudes.envelope(target))
    edge = times * _reach(convention) + postfilter.reach
    inside = slice(edge, count - edge)  # what crops have cut counts nothing
    wanted = _above_floor(wanted.abs().clamp(min=1e-7).log())
    found, before = (
        (_above_floor(log) - wanted)[:, inside].square().mean() for log in (log_magnitude + change, log_magnitude)
    )
    return found, before.detach()


def _above_floor(log_magnitude: Tensor) -> Tensor:
    floor = math.log(FLOOR)
    return F.softplus(log_magnitude - floor) + floor
