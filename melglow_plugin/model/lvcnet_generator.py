"""LVCNetGenerator: noise and a mel to audio without a likelihood, for adversarial training."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melglow_plugin.model.flow import squeeze, unsqueeze
from melglow_plugin.model.kernel_predictor import masked
from melglow_plugin.model.lvc_net import LVCBlock
from melglow_plugin.model.mel_model import Condition, MelModel, check_positive, constructor_arguments
from melglow_plugin.model.modules import MelNet, ModulesOf, full_precision

PAPER = {  # sizes of the authors' configuration: 0.94 M parameters; its linear prediction is none
    "squeeze_factor": 1, "n_blocks": 3, "channels": 8, "n_layers": 10, "kernel_size": 3, "predictor_channels": 64,
    "predictor_layers": 2, "lpc_order": 0,
}  # fmt: skip


class LVCNetGenerator(MelModel):
    """Noise passes blocks of location-variable convolutions and becomes speech: no flow, so it has no likelihood.

    Zeng et al., "LVCNet: Efficient Condition-Dependent Modeling Network for Waveform Generation", ICASSP 2021,
    arXiv:2102.10815; :data:`PAPER` holds its sizes. Ours: ``squeeze_factor`` folds samples into channels, all layers
    have skip connections, and with ``lpc_order`` the network predicts the change of the noise into the excitation of
    the mel's all-pole filter, as an LPC vocoder; without it the last step is the paper's tanh.

    Args:
        n_mels: mel bins.
        hop_length: samples per mel frame, a multiple of ``squeeze_factor``.
        squeeze_factor: samples folded into channels.
        n_blocks: blocks, each with a kernel predictor of its own.
        channels: hidden; the number of parameters grows with its square.
        n_layers: of a block; dilations 1, 2, 4, ... steps.
        kernel_size: taps, odd.
        predictor_channels, predictor_layers: width and depth of each kernel predictor.
        lpc_order: taps of the filter that the mel predicts each sample by; 0: none.
        postfilter_channels: as in :class:`~melglow_plugin.model.mel_model.MelModel`.
    """

    has_likelihood = False

    def __init__(
        self,
        n_mels: int = 80,
        hop_length: int = 256,
        squeeze_factor: int = 4,
        n_blocks: int = 3,
        channels: int = 16,
        n_layers: int = 7,
        kernel_size: int = 3,
        predictor_channels: int = 32,
        predictor_layers: int = 2,
        lpc_order: int = 32,
        postfilter_channels: int = 0,
    ) -> None:
        self.hyperparameters = constructor_arguments(locals())
        super().__init__(n_mels, hop_length, squeeze_factor, lpc_order, postfilter_channels)
        check_positive(n_blocks=n_blocks)
        self.start = nn.Linear(squeeze_factor, channels)
        self.blocks = ModulesOf[LVCBlock](
            LVCBlock(n_mels, channels, n_layers, kernel_size, predictor_channels, predictor_layers)
            for _ in range(n_blocks)
        )
        self.skips = ModulesOf[nn.Linear](
            nn.Linear(n_layers * channels, 2 * channels, bias=False) for _ in range(n_blocks)
        )
        self.end = nn.Linear(2 * channels, squeeze_factor)
        nn.init.zeros_(self.end.bias)

    @property
    def nets(self) -> list[MelNet]:
        """The blocks."""
        return list(self.blocks)

    def forward(
        self, mel: Tensor, noise: Tensor, lengths: Tensor | None = None, cond: Condition | None = None
    ) -> Tensor:
        """Noise to audio.

        Args:
            mel: (B, M, F) as extracted; the model normalises it.
            noise: (B, T), T = F * hop_length, of the standard deviation that it had in training.
            lengths: frames of each example where the batch is padded, (B,).
            cond: the result of :meth:`condition` for this mel; None: computed here.

        Returns:
            wav (B, T).

        Raises:
            ValueError: T and F disagree, or ``mel`` has another number of bins.
        """
        self.check_shapes(noise, mel, "noise")
        cond = self.condition(mel, lengths) if cond is None else cond
        x = squeeze(full_precision(noise), self.squeeze_factor)  # (B, T) -> (B, L, S)
        mask, skipped = self.step_mask(x, lengths), x.new_zeros(())
        hidden = masked(self.start(x), mask)
        for block, skip, known in zip(self.blocks, self.skips, cond.nets, strict=True):
            hidden, share = block.residual(hidden, known, skip, mask)
            skipped = skipped + share
        out = self.end(F.leaky_relu(skipped, 0.2)).to(x.dtype)
        if cond.lpc is None:
            return torch.tanh(unsqueeze(out))
        return self.lpc.inverse(unsqueeze(x + out), mel, cond=cond.lpc)

    def inverse(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None, cond: Condition | None = None) -> Tensor:
        """:meth:`forward` in the order of a flow's ``inverse``, which callers of both know."""
        return self(mel, z, lengths, cond)
