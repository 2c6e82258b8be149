#!/usr/bin/env python3
"""Speak a mel with the exported model; numpy, soundfile and onnxruntime are enough, torch is not needed.

melglow export --format onnx -o onnx && python synthesize.py onnx/model.onnx mel.npy out.wav
"""

import json
import os
import sys

import numpy as np
import onnxruntime
import soundfile
from refine import refine
from sharpen import sharpen

if len(sys.argv) != 4:
    sys.exit("usage: synthesize.py model.onnx mel.npy out.wav")
model, mel_file, wav_file = sys.argv[1:]
if os.path.exists(wav_file):
    sys.exit(f"{wav_file} is there already: name another file")
session = onnxruntime.InferenceSession(model)
facts = session.get_modelmeta().custom_metadata_map  # also "convention": what the mel must be, as JSON
mel, bins = np.load(mel_file), json.loads(facts["convention"])["n_mels"]
if mel.ndim != 2 or mel.shape[0] != bins or mel.shape[1] == 0 or not np.isfinite(mel).all():
    sys.exit(f"{mel_file} has shape {mel.shape}, wanted ({bins}, frames) of finite values")
mel = sharpen(mel.astype(np.float32), facts)
samples = mel.shape[1] * int(facts["hop_length"])
z = 0.6 * np.random.default_rng(0).standard_normal((1, samples)).astype(np.float32)
(wav,) = session.run(None, {"mel": mel[None], "z": z})
wav = refine(wav[0], mel, facts)  # the model's rounds, or its resynthesis
soundfile.write(wav_file, wav, int(facts["sample_rate"]))
