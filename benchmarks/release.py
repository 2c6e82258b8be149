"""Write a released model: the weights as they were scored, facts, and what benchmarks/voices.py measured.

    python benchmarks/release.py MODEL --facts FACTS.yaml --scores "eval, LJSpeech=FILE.json:SYSTEM" -o pretrained/NAME

The weights that are written are those that were scored: another SHA-256 of the weights is refused.
"""

import argparse
import hashlib
import json
from pathlib import Path

import yaml
from voices_tables import COLUMNS

from melglow_plugin.checkpoint import folder
from melglow_plugin.checkpoint.card import model_card
from melglow_plugin.cli.shared import refinement
from melglow_plugin.evaluation.evaluate import SCORES, summarise
from melglow_plugin.inference.resynthesis import RESYNTHESIS


def metrics(label: str, source: str, sha256: str) -> dict[str, str]:
    """``"LABEL, SCORE"`` -> mean and 95 % interval, of ``FILE:SYSTEM``; ValueError: other weights were scored."""
    path, _, system = source.rpartition(":")
    entry = json.loads(Path(path).read_text(encoding="utf-8"))["systems"][system]
    if sha256[:16] not in entry["identity"]:
        raise ValueError(f"{path}: {system} was scored with {entry['identity']}, the weights are {sha256}")
    scored = [{k: v for k, v in each.items() if v is not None} for each in entry["scores"].values()]
    summary, found = summarise(scored), {f"{label}, clips": str(len(scored))}
    for name, digits in COLUMNS.items():
        mean, half = summary[name]["mean"], summary[name]["high"] - summary[name]["mean"]
        found[f"{label}, {SCORES[name].label}"] = f"{mean:.{digits}f} ± {half:.{digits}f}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--facts", type=Path, required=True, help="YAML: facts about data and training for the card")
    parser.add_argument("--scores", nargs="*", default=[], metavar="LABEL=JSON:SYSTEM", help="measured by voices.py")
    parser.add_argument("--refine", type=refinement, default=RESYNTHESIS, help="that it carries (resynthesis)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; the card in it is written anew")
    args = parser.parse_args()
    weights = (args.model / folder.WEIGHTS_FILE).read_bytes()
    sha256 = hashlib.sha256(weights).hexdigest()
    training = yaml.safe_load(args.facts.read_text(encoding="utf-8"))
    training["metrics"] = {k: v for each in args.scores for k, v in metrics(*each.split("=", 1), sha256).items()}
    config = folder.read_config(args.model / folder.CONFIG_FILE) | {"training": training, "refine": args.refine}
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / folder.WEIGHTS_FILE).write_bytes(weights)
    (args.output / folder.CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (args.output / folder.CARD_FILE).write_text(model_card(folder.load(args.output), sha256), encoding="utf-8")
    print(f"{args.output}: sha256 {sha256}")


if __name__ == "__main__":
    main()
