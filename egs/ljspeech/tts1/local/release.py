#!/usr/bin/env python3
"""A trained acoustic model as a folder that can be shared: nothing in it can execute.

    python local/release.py exp/fastspeech2/valid.l1_loss.ave.pth ../../../pretrained/fastspeech2_ljspeech

Writes ``config.yaml`` (what ESPnet needs to build the model) and ``model.safetensors`` (weights in float16, beside
them the statistics that ESPnet keeps in files). ``voice.py`` makes ESPnet's files of them again.
"""

import argparse
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

KEPT = (
    "token_list", "odim", "model_conf", "token_type", "bpemodel", "non_linguistic_symbols", "cleaner", "g2p",
    "use_preprocessor", "feats_extract", "feats_extract_conf", "normalize", "normalize_conf", "tts", "tts_conf",
    "pitch_extract", "pitch_extract_conf", "pitch_normalize", "pitch_normalize_conf",
    "energy_extract", "energy_extract_conf", "energy_normalize", "energy_normalize_conf", "version",
)  # fmt: skip
MEANINGS = {"?": ".", "!": ".", "-": ",", "<unk>": ","}  # marks that the corpus hardly has, and what they do instead
EMBEDDING = "tts.encoder.embed.0.weight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_file", type=Path, help="config.yaml lies beside it")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    config = yaml.safe_load((args.model_file.parent / "config.yaml").read_text(encoding="utf-8"))
    state = torch.load(args.model_file, map_location="cpu", weights_only=True)
    tokens = config["token_list"]
    for mark, like in MEANINGS.items():
        state[EMBEDDING][tokens.index(mark)] = state[EMBEDDING][tokens.index(like)]
    for name in ("normalize", "pitch_normalize", "energy_normalize"):
        config[f"{name}_conf"].pop("stats_file")  # its numbers are the tensors {name}.mean and {name}.std
    args.out.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({key: config[key] for key in KEPT if key in config}, allow_unicode=True, sort_keys=False)
    (args.out / "config.yaml").write_text(text, encoding="utf-8")
    weights = {key: value.half() if key.startswith("tts.") else value for key, value in state.items()}
    save_file({key: value.contiguous() for key, value in weights.items()}, args.out / "model.safetensors")
    print(f"{args.out}: {sum(value.numel() for value in state.values()) / 1e6:.1f} M numbers")


if __name__ == "__main__":
    main()
