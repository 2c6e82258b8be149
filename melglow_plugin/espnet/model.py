"""The model that ESPnet2's trainer trains: a flow, its mel, and the loss."""

import contextlib
from dataclasses import dataclass

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from melglow_plugin.data import dequantised, segment_samples, wav_and_mel
from melglow_plugin.loss import MultiResolutionSTFT, bits_per_sample, flow_nll
from melglow_plugin.mel import MelConvention
from melglow_plugin.models import MelFlow


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms. Likelihood alone is the paper's loss: ``stft: 0, mel: 0``."""

    sigma: float = 1.0  # std of the prior in the likelihood
    stft: float = 1.0  # weight of the multi-resolution STFT distance of a sample
    mel: float = 1.0  # weight of the log-mel L1 of that sample, in nats
    sample_sigma: float = 0.6  # std of z when drawing the sample
    spectral_start: int = 0  # first step with spectral terms
    spectral_interval: int = 1  # steps from one spectral term to the next
    windows: tuple[int, ...] = (2048, 1024, 512, 256)  # samples

    @property
    def spectral(self) -> bool:
        return self.stft > 0 or self.mel > 0


class ESPnetVocoderModel(AbsESPnetModel):
    """A flow under ESPnet2's interface: ``forward(speech, ...) -> loss, stats, weight``.

    ``speech`` holds crops with context as :func:`melglow_plugin.data.cut` makes them. In evaluation the averaged
    weights speak, where ``ema_decay`` is above 0, with noise that is the same in every epoch.

    ``conditioner_dtype`` bfloat16 trains the conditioners in that precision, on a CPU too (ESPnet's ``--use_amp`` needs
    a GPU); the flow's own arithmetic, the mel and the losses stay float32, and so does validation.
    """

    def __init__(
        self,
        flow: MelFlow,
        convention: MelConvention,
        loss: LossConfig,
        ema_decay: float = 0.0,
        conditioner_dtype: str = "float32",
    ) -> None:
        super().__init__()
        if conditioner_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"model_conf: conditioner_dtype {conditioner_dtype!r} is none of float32, bfloat16")
        self.reduced = conditioner_dtype == "bfloat16"
        self.flow = flow
        self.convention = convention
        self.loss = loss
        self.stft = MultiResolutionSTFT(loss.windows)
        self.ema = None
        if ema_decay > 0:
            self.ema = AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
            self.ema.requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def best_flow(self) -> MelFlow:
        """The averaged flow where there is one."""
        return self.flow if self.ema is None else self.ema.module

    def forward(self, speech: Tensor, speech_lengths: Tensor | None = None, **_) -> tuple[Tensor, dict, Tensor]:
        """Loss of a batch of crops (B, segment_samples); ESPnet adds ``utt_id`` and may add more, which is ignored."""
        if self.training:
            self._start_step()
        # Mel, likelihood and spectra in full precision; autocast reaches the conditioners only.
        with torch.autocast(speech.device.type, enabled=False):
            wav, mel = wav_and_mel(speech.float(), self.convention, self._frames(speech))
        flow = self.flow if self.training else self.best_flow
        generator = None if self.training else torch.Generator(speech.device).manual_seed(0)
        with self._precision(wav):
            cond = flow.condition(mel)
            z, log_det = flow(dequantised(wav, generator), mel, cond=cond)
        nll = flow_nll(z, log_det, self.loss.sigma)
        stats = {"nll": nll, "bits": bits_per_sample(nll), "log_det": log_det.mean() / z.shape[1]}
        loss = nll
        if self._spectral_now():
            noise = torch.randn(wav.shape, generator=generator, device=wav.device)
            with self._precision(wav):
                sample = flow.inverse(noise * self.loss.sample_sigma, mel, cond=cond)
            terms = self._spectral(sample, wav)
            stats.update(terms)
            loss = nll + self.loss.stft * terms["stft"] + self.loss.mel * terms["mel"]
        stats["loss"] = loss
        # With a dimension each: the distributed trainer sums them over ranks.
        return force_gatherable((loss, {k: v.detach() for k, v in stats.items()}, len(speech)), speech.device)

    def collect_feats(self, speech: Tensor, speech_lengths: Tensor, **_) -> dict[str, Tensor]:
        """Whole recordings (B, T) -> their mels, frame-major as ESPnet keeps them, for the per-bin statistics."""
        mels = [self.convention.extract(wav[:n]).T for wav, n in zip(speech, speech_lengths.tolist(), strict=True)]
        lengths = torch.tensor([len(mel) for mel in mels])
        return {"feats": torch.nn.utils.rnn.pad_sequence(mels, batch_first=True), "feats_lengths": lengths}

    def _precision(self, like: Tensor):
        if self.reduced and self.training:
            return torch.autocast(like.device.type, torch.bfloat16)
        return contextlib.nullcontext()  # as the trainer has it

    def _start_step(self) -> None:
        if self.ema is not None:
            self.ema.update_parameters(self.flow)  # with what the last step left
        self.steps += 1

    def _spectral_now(self) -> bool:
        step = int(self.steps) - 1
        due = step >= self.loss.spectral_start and step % self.loss.spectral_interval == 0
        return self.loss.spectral and (due or not self.training)

    def _spectral(self, sample: Tensor, wav: Tensor) -> dict[str, Tensor]:
        with torch.autocast(wav.device.type, enabled=False):
            sample, nats = sample.float(), self.convention.nats_per_unit
            mel = (self.convention.extract(sample) - self.convention.extract(wav)).abs().mean() * nats
            return {"stft": self.stft(sample, wav), "mel": mel}

    def _frames(self, speech: Tensor) -> int:
        extra = segment_samples(self.convention, 1) - self.convention.hop_length
        return (speech.shape[1] - extra) // self.convention.hop_length
