"""``python -m melglow_plugin.espnet.espnet3.tts --stages infer --inference_config FILE``."""

from melglow_plugin.espnet.espnet3.tts import main

if __name__ == "__main__":  # Dask's workers import this file again
    main()
