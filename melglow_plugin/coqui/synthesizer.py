"""Coqui's Synthesizer tells a vocoder of ours which acoustic model it serves."""

import functools


def patch(module) -> None:
    """Wrap the method of ``Synthesizer`` that loads a vocoder; doing it again changes nothing."""
    original = module.Synthesizer._load_vocoder
    if hasattr(original, "_before_melglow"):
        return

    @functools.wraps(original)
    def _load_vocoder(self, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        vocoder = getattr(self.vocoder_model, "model_g", self.vocoder_model)  # a GAN holds its generator
        if hasattr(vocoder, "set_acoustic_model"):
            vocoder.set_acoustic_model(self)

    _load_vocoder._before_melglow = original
    module.Synthesizer._load_vocoder = _load_vocoder
