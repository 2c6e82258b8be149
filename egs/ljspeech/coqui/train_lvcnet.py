#!/usr/bin/env python3
"""Train LVCNet on LJSpeech in Coqui's own GAN model; without --corpus, on the bundled recordings, to see it work.

Options of the Trainer (--continue_path, --restore_path, --small_run ...) and fields of the configuration
(--coqpit.epochs 3, --coqpit.generator_model_params.channels 8 ...) go on the same command line.
"""

from melglow_plugin.processor import prepare

prepare()  # before torch is imported

from train_melglow import settings, train

import melglow_plugin.coqui
from melglow_plugin.coqui.gan_config import LVCnetConfig

if __name__ == "__main__":
    melglow_plugin.coqui.register()
    from TTS.vocoder.models.gan import GAN

    train(LVCnetConfig(**settings("lvcnet")), GAN, __doc__)
