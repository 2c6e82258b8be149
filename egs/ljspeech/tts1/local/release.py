#!/usr/bin/env python3
"""A trained acoustic model as a folder that can be shared: nothing in it can execute.

    python local/release.py exp/fastspeech2/{28,29,30}epoch.pth --data data/dev --out FOLDER

Writes ``config.yaml`` (what ESPnet needs to build the model) and ``model.safetensors`` (the mean of the checkpoints,
weights in float16, beside them the statistics that ESPnet keeps in files). ``voice.py`` makes ESPnet's files of them
again. ``--data`` also gives back the variance that regression takes from a mel: see ``match_variance``.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import voice

from melglow_plugin.files import read_scp, read_wav

KEPT = (
    "token_list", "odim", "model_conf", "token_type", "bpemodel", "non_linguistic_symbols", "cleaner", "g2p",
    "use_preprocessor", "feats_extract", "feats_extract_conf", "normalize", "normalize_conf", "tts", "tts_conf",
    "pitch_extract", "pitch_extract_conf", "pitch_normalize", "pitch_normalize_conf",
    "energy_extract", "energy_extract_conf", "energy_normalize", "energy_normalize_conf", "version",
)  # fmt: skip
MEANINGS = {"?": ".", "!": ".", "-": ",", "<unk>": ","}  # marks that the corpus hardly has, and what they do instead
EMBEDDING = "tts.encoder.embed.0.weight"


def mean_of(files: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of the weights of several epochs."""
    states = [torch.load(file, map_location="cpu", weights_only=True) for file in files]
    return {
        key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value
        for key, value in states[0].items()
    }


def match_variance(state: dict[str, torch.Tensor], spoken: torch.Tensor, recorded: torch.Tensor) -> None:
    """Change the statistics that de-normalise mels so that spoken ones vary as much as those of recordings do.

    A model trained by regression gives means of what was possible, which move less. Each bin is scaled about its mean
    to the variance of the recordings (Silén et al., "Ways to implement global variance in statistical speech
    synthesis", 2012). Texts of the training would show less of the loss than new ones.

    Args:
        state: of the model; ``normalize.mean`` and ``normalize.std`` change.
        spoken: normalised mels that it speaks, (F, M).
        recorded: those of recordings of the same texts, normalised by the same statistics, (F, M).
    """
    mean, gain = spoken.mean(0), recorded.std(0) / spoken.std(0)
    state["normalize.mean"] = state["normalize.mean"] + state["normalize.std"] * mean * (1 - gain)
    state["normalize.std"] = state["normalize.std"] * gain


def write(folder: Path, config: dict, state: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({key: config[key] for key in KEPT if key in config}, allow_unicode=True, sort_keys=False)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    weights = {key: value.half() if key.startswith("tts.") else value.float() for key, value in state.items()}
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "model.safetensors")
    os.chmod(folder / "model.safetensors", 0o644)


@torch.no_grad()
def normalised_mels(config: dict, state: dict[str, torch.Tensor], data: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mels (F, M) of a data folder's texts, spoken, and of its recordings, each one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), config, state)
        tts = voice.text2speech(Path(folder))
    tts.vocoder = None
    spoken = [tts(line.split(maxsplit=1)[1])["feat_gen"] for line in (data / "text").read_text().splitlines()]
    recorded = []
    for path in read_scp(data / "wav.scp").values():
        wav = read_wav(Path(path), tts.feats_extract.fs)[None]
        mel, lengths = tts.feats_extract(wav, torch.tensor([wav.shape[1]]))
        recorded.append(tts.normalize(mel, lengths)[0][0])
    return torch.cat(spoken), torch.cat(recorded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_files", type=Path, nargs="+", help="of the trainer; config.yaml lies beside the first")
    parser.add_argument("--data", type=Path, help="data folder with text and wav.scp: the variance is matched on it")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = yaml.safe_load((args.model_files[0].parent / "config.yaml").read_text(encoding="utf-8"))
    state, tokens = mean_of(args.model_files), config["token_list"]
    for mark, like in MEANINGS.items():
        state[EMBEDDING][tokens.index(mark)] = state[EMBEDDING][tokens.index(like)]
    for name in voice.STATISTICS:
        config[f"{name}_conf"].pop("stats_file")  # its numbers are the tensors {name}.mean and {name}.std
    if args.data:
        spoken, recorded = normalised_mels(config, state, args.data)
        match_variance(state, spoken, recorded)
        ratio = (spoken.std(0) / recorded.std(0)).mean()
        print(f"standard deviation of spoken mels before: {ratio:.3f} of that of recordings")
    write(args.out, config, state)
    print(f"{args.out}: {sum(value.numel() for value in state.values()) / 1e6:.1f} M numbers")


if __name__ == "__main__":
    main()
