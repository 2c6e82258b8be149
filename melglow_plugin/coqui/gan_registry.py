"""Coqui's ``setup_generator``, a closed list of names, makes LVCNet's generator, too."""

import functools

NAME = "lvcnet_generator"  # generator_model


def patch(module) -> None:
    """Wrap ``setup_generator`` of one of Coqui's modules; doing it again changes nothing."""
    original = module.setup_generator
    if hasattr(original, "_before_melglow"):
        return

    @functools.wraps(original)
    def setup_generator(c):
        if c.generator_model.lower() != NAME:
            return original(c)
        from melglow_plugin.coqui.gan import LVCnetGenerator

        return LVCnetGenerator(c)

    setup_generator._before_melglow = original
    module.setup_generator = setup_generator
