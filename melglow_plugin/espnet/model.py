"""The model that ESPnet2's trainer trains: a flow, its mel, and the loss."""

import contextlib
from functools import partial

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from melglow_plugin.espnet.adversarial import AdversarialConfig, Adversary
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.processor import DTYPES, resolved_dtype
from melglow_plugin.training.crops import segment_frames, wav_and_mel
from melglow_plugin.training.ema import exponential_average
from melglow_plugin.training.objective import FlowObjective, LossConfig


class ESPnetVocoderModel(AbsESPnetModel):
    """A flow under ESPnet2's interface: ``forward(speech, ...) -> loss, stats, weight``.

    ``speech`` holds crops with context as :func:`melglow_plugin.training.crops.cut` makes them. In evaluation the
    averaged weights synthesize, where ``ema_decay`` is above 0, with noise that is the same in every epoch.

    ``conditioner_dtype`` bfloat16 trains the conditioners in that precision, on a CPU too (ESPnet's ``--use_amp`` needs
    a GPU); the flow's own arithmetic, the mel and the losses stay float32, and so does validation. ``auto``, the
    default, is bfloat16 where the processor has it and computes faster in it, else float32.

    ``adversarial`` adds discriminators of the samples of training.
    """

    def __init__(
        self,
        flow: MelModel,
        convention: MelConvention,
        loss: LossConfig,
        ema_decay: float = 0.0,
        conditioner_dtype: str = "auto",
        adversarial: AdversarialConfig | None = None,
    ) -> None:
        super().__init__()
        if conditioner_dtype not in DTYPES:
            raise ValueError(f"model_conf: conditioner_dtype {conditioner_dtype!r} is none of {', '.join(DTYPES)}")
        self.conditioner_dtype = conditioner_dtype
        self.flow = flow
        self.convention = convention
        self.loss = loss
        self.objective = FlowObjective(convention, loss)
        self.ema = None
        if ema_decay > 0:
            self.ema = AveragedModel(flow, multi_avg_fn=exponential_average(ema_decay))
            self.ema.requires_grad_(False)
        self.adversary = None if adversarial is None else Adversary(adversarial)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.graph_step = None  # of a trainer that captures its steps

    @property
    def best_flow(self) -> MelModel:
        """The averaged flow where there is one."""
        return self.flow if self.ema is None else self.ema.module

    def forward(
        self, speech: Tensor, speech_lengths: Tensor | None = None, feats: Tensor | None = None, **_
    ) -> tuple[Tensor, dict, Tensor]:
        """Loss of a batch of crops (B, segment_samples); ESPnet adds ``utt_id`` and may add more, which is ignored.

        ``feats`` (B, F, M), where given, are an acoustic model's frames of the same crops: the flow uses them
        instead of the true mel.
        """
        loss, stats = self.losses(self.start_step() if self.training else (True, None), speech, feats)
        # With a dimension each: the distributed trainer sums them over ranks.
        return force_gatherable((loss, stats, len(speech)), speech.device)

    def start_step(self) -> tuple[bool, bool | None]:
        """Add the weights of the last step to the average, and return ``kind`` of the next one's :meth:`losses`."""
        if self.ema is not None:
            self.ema.update_parameters(self.flow)
        self.steps += 1
        steps = int(self.steps)
        train_generator = None if self.adversary is None else steps > self.adversary.config.start
        return self.loss.spectral_at(steps - 1), train_generator

    def losses(
        self, kind: tuple[bool, bool | None], speech: Tensor, feats: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and stats of a batch, without waiting for the device.

        Args:
            kind: whether there are spectral terms; whether the flow learns from the discriminators, None: there are
                none, or they are not used: their losses in two epochs cannot be compared.
            speech, feats: as in :meth:`forward`.
        """
        spectral, train_generator = kind
        wav, mel = self.wav_and_mel(speech, feats)
        flow = self.flow if self.training else self.best_flow
        generator = None if self.training else torch.Generator(speech.device).manual_seed(0)
        critic = None if train_generator is None else partial(self.adversary, train_generator=train_generator)
        return self.objective(flow, wav, mel, spectral, generator, lambda: self._precision(wav), critic)

    def wav_and_mel(self, speech: Tensor, feats: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Crops (B, segment_samples) -> wav (B, F * hop) and mel (B, M, F), which is that of ``feats`` where given."""
        # In full precision; autocast reaches the conditioners only.
        with torch.autocast(speech.device.type, enabled=False):
            wav, mel = wav_and_mel(speech.float(), self.convention, segment_frames(self.convention, speech.shape[1]))
            return wav, mel if feats is None else feats.float().mT

    def collect_feats(self, speech: Tensor, speech_lengths: Tensor, **_) -> dict[str, Tensor]:
        """Whole recordings (B, T) -> their mels, frame-major as ESPnet keeps them, for the per-bin statistics."""
        mels = [self.convention.extract(wav[:n]).T for wav, n in zip(speech, speech_lengths.tolist(), strict=True)]
        lengths = torch.tensor([len(mel) for mel in mels])
        return {"feats": torch.nn.utils.rnn.pad_sequence(mels, batch_first=True), "feats_lengths": lengths}

    def _precision(self, like: Tensor):
        kind = like.device.type
        if self.training and resolved_dtype(self.conditioner_dtype, kind) == torch.bfloat16:
            return torch.autocast(kind, torch.bfloat16)
        return contextlib.nullcontext()  # as the trainer has it
