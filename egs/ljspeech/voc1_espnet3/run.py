#!/usr/bin/env python3
"""The recipe of voc1 with ESPnet3: Lightning trains, Dask collects statistics and decodes. README.md says how."""

from melglow_plugin.processor import prepare

prepare()  # before torch is imported

from melglow_plugin.espnet.espnet3.system import main

if __name__ == "__main__":  # workers import this file again
    main()
