#!/usr/bin/env python3
"""A page to listen to: the best and the worst sentences of each voice, from what benchmarks/tts.py wrote.

    python local/page.py conf/sentences.csv -o ../../../docs/speech \\
        --voice "ESPnet, FastSpeech2=exp/sentences:melglow_r0_s0.6,hifigan_ljspeech,griffin_lim"

The first system of a voice decides by its Distill-MOS; FOLDER holds scores.json and SYSTEM/KEY.wav. Writes index.html
and audio/*.ogg (Vorbis).
"""

import argparse
import json
from html import escape
from pathlib import Path

import soundfile

from melglow_plugin.evaluation.page import document

ABOUT = (
    "The sentences with the highest and the lowest Distill-MOS of each voice, a prediction of how good speech sounds, "
    "1 to 5. No person rated them. melglow_r1_s0.6: MelGlow, one round of refinement, sigma 0.6; _sharp: "
    "with its sharpening of the mel, the default. "
    '<a href="../speech.md">Scores of all sentences</a>.'
)
ROWS = """
article { margin: 1.2rem 0; }
article table { width: 100%; border-collapse: collapse; }
article td, article th { text-align: left; white-space: normal; padding: .35rem .8rem; }
article audio { width: 15rem; height: 2.2rem; }
"""


def row(label: str, scores: dict, source: str) -> str:
    """A line of a sentence's table: a player, the score, and what the recogniser heard."""
    heard = scores["whisper_heard"] if scores["whisper_errors"] else "every word"
    return (
        f'<tr><th>{escape(label)}</th><td><audio controls preload="none" src="{source}"></audio></td>'
        f"<td>{scores['distill_mos']:.2f}</td><td>{escape(heard)}</td></tr>"
    )


def article(key: str, text: str, folder: Path, chosen: list[str], rows: dict, out: Path) -> str:
    lines = []
    for system in chosen:
        wav, rate = soundfile.read(folder / system / f"{key}.wav")
        source = f"audio/{folder.name}-{key}-{system}.ogg"
        soundfile.write(out / source, wav, rate, format="OGG", subtype="VORBIS")
        lines.append(row(system, rows[system][key], source))
    heads = "".join(f"<th>{name}</th>" for name in ("vocoder", "", "Distill-MOS", "Whisper tiny.en heard"))
    return f"<article><h3>{escape(text)}</h3><table><tr>{heads}</tr>{''.join(lines)}</table></article>"


def section(voice: str, texts: dict[str, str], number: int, out: Path) -> str:
    """The best and the worst ``number`` sentences of ``LABEL=FOLDER:SYSTEM,SYSTEM``."""
    label, _, place = voice.partition("=")
    name, _, systems = place.rpartition(":")
    folder, chosen = Path(name), systems.split(",")
    rows = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    order = sorted(texts, key=lambda key: -rows[chosen[0]][key]["distill_mos"])
    parts = [f"<h2>{escape(label)}</h2>"]
    for heading, keys in (("best", order[:number]), ("worst", order[-number:])):
        parts.append(f"<p>The {heading} with {escape(chosen[0])}:</p>")
        parts += [article(key, texts[key], folder, chosen, rows, out) for key in keys]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path, help="lines of KEY|text")
    parser.add_argument("--voice", action="append", required=True, metavar="LABEL=FOLDER:SYSTEM,SYSTEM")
    parser.add_argument("--number", type=int, default=2, help="of best and of worst sentences (2)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    texts = dict(line.split("|", 1) for line in args.sentences.read_text(encoding="utf-8").splitlines())
    (args.output / "audio").mkdir(parents=True, exist_ok=True)
    sections = [section(voice, texts, args.number, args.output) for voice in args.voice]
    title = "Two demonstration voices"
    body = f"<header><h1>{title}</h1><p>{ABOUT}</p></header>\n" + "\n".join(sections)
    page = document(title, body, ROWS)
    (args.output / "index.html").write_text(page, encoding="utf-8")
    print(args.output / "index.html")


if __name__ == "__main__":
    main()
