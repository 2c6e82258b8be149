"""A change of Coqui's Synthesizer: it passes itself to a vocoder of ours, which reads the acoustic model's mel."""

from melglow_plugin.watch import wrapping


def patch(module) -> None:
    """Wrap the method of ``Synthesizer`` that loads a vocoder; doing it again changes nothing."""

    @wrapping(module.Synthesizer, "_load_vocoder")
    def load_vocoder(original, self, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        vocoder = getattr(self.vocoder_model, "model_g", self.vocoder_model)  # a GAN holds its generator
        if hasattr(vocoder, "set_acoustic_model"):
            vocoder.set_acoustic_model(self)
