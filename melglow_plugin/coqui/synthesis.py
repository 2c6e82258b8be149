"""What Coqui's Synthesizer calls, of every vocoder of ours."""

import logging
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from melglow_plugin.checkpoint.coqui import PREFIX
from melglow_plugin.coqui.acoustic import acoustic_convention, check_input
from melglow_plugin.mel.convention import MelConvention

logger = logging.getLogger(__name__)


class Synthesis:
    """Synthesis for a module that has ``vocoder`` and ``config``: audio, sigma, seed, refine, sharpen."""

    _host: weakref.ref | None = None  # of the Synthesizer
    _acoustic: MelConvention | None = None  # of the mels that it gave last; a copy of the vocoder has no host

    @property
    def convention(self) -> MelConvention:
        """The convention of the vocoder's mel."""
        return self.vocoder.convention

    @torch.no_grad()
    def inference(self, x: Tensor, aux_input: dict[str, Any] | None = None) -> Tensor:
        """Synthesize a mel from the Synthesizer.

        Args:
            x: mel, (B, M, F). Inside a Synthesizer it is the acoustic model's, in its log base and gain, normalised as
                our ``audio`` says; elsewhere it is a mel as ``audio`` defines it.
            aux_input: not used.

        Returns:
            (B, 1, F * hop_length) float32 in [-1, 1].

        Raises:
            ValueError: ``x`` is no such mel, or the acoustic model's differs in its structure.
        """
        if self.vocoder.flow.mel_mean.dtype != torch.float32:
            self.float()  # TTS(...).half() reaches the vocoder; it synthesizes in float32
        check_input(x, self.convention)
        mel = self.input_convention().convert(x.float(), self.convention)
        c = self.config
        return self.vocoder(mel, sigma=c.sigma, seed=c.seed, refine=c.refine, sharpen=c.sharpen)[:, None]

    def set_acoustic_model(self, host: nn.Module) -> None:
        """Take the mel of ``host.tts_model`` from now on; ValueError where it cannot be converted exactly."""
        self._host, self._acoustic = weakref.ref(host), None
        self.input_convention()

    def input_convention(self) -> MelConvention:
        """The convention of the mels that :meth:`inference` gets."""
        host = self._host() if self._host is not None else None
        if (acoustic := getattr(host, "tts_model", None)) is not None:  # another one may be set at any time
            self._acoustic = acoustic_convention(acoustic, self.config.audio, self.convention)
        return self._acoustic or MelConvention.coqui(self.config.audio.to_dict())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args) -> None:
        """As torch does; a warning where the postfilter is left out, as Coqui's Trainer does with what does not fit."""
        output = state_dict.get(f"{prefix}{PREFIX}postfilter.output.weight")
        own = self.vocoder.flow.hyperparameters["postfilter_channels"]
        if output is not None and output.shape[1] != own:
            logger.warning(
                "the weights have postfilter_channels %d, the configuration %d: their postfilter is left out",
                output.shape[1],
                own,
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_host": None}
