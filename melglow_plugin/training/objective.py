"""The training loss: a flow's likelihood of a crop, and spectral distances of a sample that is made from its mel."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from melglow_plugin.inference.refine import check_rounds, refine
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.loss import MultiResolutionSTFT, bits_per_sample, flow_nll
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.training.crops import dequantised

HEALTHY_RMS = 0.4  # see MelModel.activation_rms


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms. Likelihood alone is the paper's loss: ``stft: 0, mel: 0``."""

    sigma: float = 1.0  # std of the prior in the likelihood
    stft: float = 1.0  # weight of the multi-resolution STFT distance of a sample
    mel: float = 1.0  # weight of the log-mel L1 of that sample, in nats
    sample_sigma: float = 0.6  # standard deviation of z for the sample
    spectral_start: int = 0  # first step with spectral terms
    spectral_interval: int = 1  # steps from one spectral term to the next
    refine: int = 0  # rounds of refinement of every second sample before the losses compare it with the recording
    mel_smoothing_prob: float = 0.0  # share of the crops whose mel is smoothed, as an acoustic model's is
    activation_penalty: float = 0.0  # weight of the excess of each coupling's activation_rms over HEALTHY_RMS
    windows: tuple[int, ...] = (2048, 1024, 512, 256)  # samples
    RENAMED: ClassVar[dict[str, str]] = {"smooth": "mel_smoothing_prob", "features": "activation_penalty"}

    @property
    def spectral(self) -> bool:
        return self.stft > 0 or self.mel > 0

    def spectral_at(self, step: int) -> bool:
        """Whether training step ``step``, counted from 0, has spectral terms."""
        return self.spectral and step >= self.spectral_start and step % self.spectral_interval == 0


class FlowObjective(nn.Module):
    """The loss of a model on crops, of a flow with its likelihood. It holds nothing that is learned or saved."""

    def __init__(self, convention: MelConvention, config: LossConfig) -> None:
        super().__init__()
        check_rounds(config.refine)
        if not 0 <= config.mel_smoothing_prob <= 1:
            raise ValueError(f"mel_smoothing_prob {config.mel_smoothing_prob} does not lie between 0 and 1")
        self.convention, self.config = convention, config
        self.stft = MultiResolutionSTFT(config.windows)

    def forward(
        self,
        flow: MelModel,
        wav: Tensor,
        mel: Tensor,
        spectral: bool = True,
        generator: torch.Generator | None = None,
        precision: Callable = contextlib.nullcontext,
        critic: Callable[[Tensor, Tensor], tuple[Tensor, dict]] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            flow: what is trained; in evaluation mode, mels stay as they are and all samples are refined.
            wav: crops, (B, F * hop_length).
            mel: their mels, (B, M, F).
            spectral: compute a sample and add the spectral terms; without them and ``critic`` no sample is computed.
            generator: source of the noise; None: the global one.
            precision: makes the context in which the flow runs.
            critic: compares the sample with the recording, both (B, T): a loss that is added, and its parts.

        Returns:
            A scalar, and its parts, detached: ``nll`` (nats per sample), ``bits``, ``log_det``, ``stft``, ``mel``,
            ``activation_rms`` (the largest of :meth:`MelModel.activation_rms`) and ``loss``.
        """
        config = self.config
        if flow.training and config.mel_smoothing_prob:
            mel = smoothed(mel, config.mel_smoothing_prob, generator)
        with precision():
            cond = flow.condition(mel)
            known = flow(dequantised(wav, generator), mel, cond=cond) if flow.has_likelihood else None
        loss, stats = self._without_sample(known, flow.activation_rms(mel))
        spectral = spectral and config.spectral
        self._check_loss(flow, spectral or critic is not None)
        if spectral or critic is not None:
            noise = torch.randn(wav.shape, generator=generator, device=wav.device)
            with precision():
                sample = flow.inverse(noise * config.sample_sigma, mel, cond=cond)
            # In training, refine every second sample only: a flow that is trained on refined samples alone relies on
            # refinement, and is worse where the mel is inexact.
            sample, wav = self._refined(sample, wav, mel, 2 if flow.training else 1)
        if spectral:
            stats |= (terms := self.spectral(sample, wav))
            loss = loss + config.stft * terms["stft"] + config.mel * terms["mel"]
        if critic is not None:
            with precision():
                criticism, terms = critic(sample, wav)
            stats |= terms
            loss = loss + criticism
        return loss, {name: value.detach() for name, value in {**stats, "loss": loss}.items()}

    def _check_loss(self, flow: MelModel, has_sample: bool) -> None:
        if not (flow.has_likelihood or has_sample):
            config = self.config
            raise ValueError(
                f"stft {config.stft}, mel {config.mel}, spectral_start {config.spectral_start}, spectral_interval "
                f"{config.spectral_interval}: {type(flow).__name__} has no likelihood, a step without them has no loss"
            )

    def _without_sample(self, known: tuple[Tensor, Tensor] | None, rms: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The likelihood of a flow's ``z`` and ``log_det``, and the penalty of activations."""
        loss, stats = rms.new_zeros(()), {}
        if known is not None:
            z, log_det = known
            loss = nll = flow_nll(z, log_det, self.config.sigma)
            stats = {"nll": nll, "bits": bits_per_sample(nll), "log_det": log_det.mean() / z.shape[1]}
        if len(rms):
            stats["activation_rms"] = rms.square().mean(1).sqrt().max()
            # Example by example, so that the gradients of several ranks are those of their batches in one.
            loss = loss + self.config.activation_penalty * (rms / HEALTHY_RMS - 1).relu().mean(1).sum()
        return loss, stats

    def _refined(self, sample: Tensor, wav: Tensor, mel: Tensor, every: int) -> tuple[Tensor, Tensor]:
        """The samples, each ``every``-th refined, and the recordings, without their ends.

        There the mel depends on audio beyond the crop, which the sample does not have.
        """
        if not self.config.refine:
            return sample, wav
        end, length = self.convention.n_fft // 2, wav.shape[-1]
        if length < 4 * end:
            raise ValueError(
                f"refine {self.config.refine}: crops of {length} samples are shorter than two FFTs, {4 * end}"
            )
        sample = sample.float()
        refined = sample.clone()
        refined[::every] = refine(sample[::every], mel[::every], self.convention, self.config.refine)
        return refined[:, end:-end], wav[:, end:-end]

    def spectral(self, sample: Tensor, wav: Tensor) -> dict[str, Tensor]:
        """Distances of a sample from the recording, both (B, T): scalars ``stft`` and ``mel`` (nats)."""
        with torch.autocast(wav.device.type, enabled=False):
            sample, nats = sample.float(), self.convention.nats_per_unit
            mel = (self.convention.extract(sample) - self.convention.extract(wav)).abs().mean() * nats
            return {"stft": self.stft(sample, wav), "mel": mel}


def smoothed(mel: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Mels (B, M, F), a ``share`` of them smoothed over bins and frames, each by weights of its own.

    An acoustic model that is trained on L1 or L2 predicts a mean of the possible mels, which is smoother than each. The
    weights of the two neighbours are drawn between 0 and 1/3; at 1/3 they equal the weight of the value itself.
    """
    drawn = torch.rand(3, len(mel), generator=generator, device=mel.device, dtype=mel.dtype)
    weights = drawn[:2] / 3 * (drawn[2] < share)
    for dim, weight in zip((1, 2), weights[..., None, None], strict=True):
        last = mel.shape[dim] - 1
        place = torch.arange(last + 1, device=mel.device)
        before, after = (mel.index_select(dim, (place + step).clamp(0, last)) for step in (-1, 1))
        mel = mel + weight * (before - 2 * mel + after)
    return mel
