"""Changes of Coqui's modules, made once they are imported."""

from melglow_plugin.watch import wrapping

GENERATOR = "lvcnet_generator"  # generator_model


def patch(module) -> None:
    """Make our vocoders known to one of Coqui's modules; doing it again changes nothing."""
    if hasattr(module, "Synthesizer"):
        _patch_synthesizer(module)
    else:
        _patch_generators(module)


def _patch_synthesizer(module) -> None:
    """It passes itself to a vocoder of ours, which reads the acoustic model's mel."""

    @wrapping(module.Synthesizer, "_load_vocoder")
    def load_vocoder(original, self, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        vocoder = getattr(self.vocoder_model, "model_g", self.vocoder_model)  # a GAN holds its generator
        if hasattr(vocoder, "set_acoustic_model"):
            vocoder.set_acoustic_model(self)


def _patch_generators(module) -> None:
    """``setup_generator``, a closed list of names, makes LVCNet's generator, too."""

    @wrapping(module, "setup_generator")
    def setup_generator(original, c):
        if c.generator_model.lower() != GENERATOR:
            return original(c)
        from melglow_plugin.coqui.gan import LVCnetGenerator

        return LVCnetGenerator(c)
