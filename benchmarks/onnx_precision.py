#!/usr/bin/env python3
"""The ONNX export in int8 and float16 beside float32: error of the wav, time, and size of the file.

    OMP_NUM_THREADS=1 python benchmarks/onnx_precision.py -o benchmarks/results/onnx_precision.json

int8: onnxruntime's dynamic quantisation of the products with weights. float16: all of it, or with the flow's own
arithmetic left in float32. The clips are bundled ones that the model was not trained on; every variant gets the same z.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import soundfile
import torch
from bundled import HELD_OUT
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from melglow_plugin import Vocoder
from melglow_plugin.checkpoint.onnx import to_onnx
from melglow_plugin.checkpoint.pretrained import pretrained_model

SECONDS = 3  # of each clip


def variants(vocoder: Vocoder, folder: Path) -> dict[str, Path]:
    """The same model in each precision; one that cannot be made is left out, with a line that gives the reason."""
    (exact,) = to_onnx(vocoder.checkpoint, folder)
    paths = {"float32": exact}
    for name, kind in (("int8", QuantType.QInt8), ("uint8", QuantType.QUInt8)):
        paths[name] = folder / f"{name}.onnx"
        quantize_dynamic(exact, paths[name], weight_type=kind)
    # What the flow itself does with its signal; the couplings' nets are Gemm, MatMul, Conv and Sigmoid.
    arithmetic = ["Exp", "Tanh", "Mul", "Add", "Sub", "Div", "Concat"]
    for name, blocked in (("float16", []), ("float16, arithmetic float32", arithmetic)):
        paths[name] = folder / f"{name}.onnx"
        model = convert_float_to_float16(onnx.load(exact), keep_io_types=True, op_block_list=blocked)
        onnx.save(model, paths[name])
    for name in list(paths):
        try:
            session(paths[name])
        except Exception as error:  # onnxruntime has no common class of its errors
            print(f"{name}: onnxruntime refuses it: {str(error).splitlines()[0]}")
            del paths[name]
    return paths


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs(vocoder: Vocoder, clips: int) -> list[dict[str, np.ndarray]]:
    """mel (1, M, F) and z (1, T) of each clip."""
    found = []
    for path in HELD_OUT[:clips]:
        wav, rate = soundfile.read(path, dtype="float32", frames=SECONDS * 22_050)
        if rate != vocoder.sample_rate:
            raise ValueError(f"{path}: {rate} Hz, the model has {vocoder.sample_rate}")
        mel = vocoder.convention.extract(torch.from_numpy(wav))[None]
        found.append({"mel": mel.numpy(), "z": vocoder.noise(0, 0.6, 1, mel.shape[-1]).numpy()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=None, help="model folder (default: the pretrained model)")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--out", type=Path, help="JSON")
    args = parser.parse_args()
    vocoder = Vocoder.from_pretrained(args.checkpoint or pretrained_model())
    clips, rows = inputs(vocoder, args.clips), []
    with tempfile.TemporaryDirectory() as folder:
        paths = variants(vocoder, Path(folder))
        sessions = {name: session(path) for name, path in paths.items()}
        times = {name: [] for name in sessions}
        for i in range(args.rounds + 1):
            for name, runs in sessions.items():
                start = time.perf_counter()
                for clip in clips:
                    runs.run(None, clip)
                if i:  # the first round warms up
                    times[name].append(time.perf_counter() - start)
        audio = sum(clip["z"].size for clip in clips) / vocoder.sample_rate
        exact = [sessions["float32"].run(None, clip)[0] for clip in clips]
        for name, runs in sessions.items():
            errors = [runs.run(None, clip)[0] - wav for clip, wav in zip(clips, exact, strict=True)]
            power, noise = (sum(float(np.square(w, dtype=np.float64).sum()) for w in some) for some in (exact, errors))
            row = {
                "variant": name,
                "mib": paths[name].stat().st_size / 2**20,
                "rtf": statistics.median(times[name]) / audio,
                "largest_error": max(float(abs(error).max()) for error in errors),
                "snr_db": 10 * float(np.log10(power / noise)) if noise else None,
            }
            rows.append(row)
            snr = "" if row["snr_db"] is None else f"{row['snr_db']:6.1f} dB"
            print(f"{name:28} {row['mib']:5.1f} MiB  RTF {row['rtf']:.3f} "
                  f"({row['rtf'] / rows[0]['rtf']:.2f})  largest error {row['largest_error']:.4f}  {snr}")  # fmt: skip
    if args.out:
        settings = {"onnxruntime": onnxruntime.__version__, "threads": torch.get_num_threads(), "clips": len(clips)}
        args.out.write_text(json.dumps({**settings, "seconds": audio, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
