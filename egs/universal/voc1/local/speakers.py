#!/usr/bin/env python3
"""Write SPEAKERS.csv: the speakers of lists of recordings with their licences, for the attribution of a released model.

    local/speakers.py --train LIST... --held-out LIST... --out SPEAKERS.csv

Each recording's row in the SOURCES.csv above it is read: corpus, speaker, sex, language, licence, repo.
"""

import argparse
import csv
from pathlib import Path

from melglow_plugin.checks import run_main
from melglow_plugin.files import audio_info, read_text
from melglow_plugin.training.corpus_voices import source_row

FIELDS = ("set", "corpus", "speaker", "sex", "language", "licence", "from")


def speakers(lists: dict[str, list[Path]]) -> list[dict]:
    """A row for each speaker of each set: its recordings counted, their seconds added up."""
    found: dict[tuple, list[float]] = {}
    for name, sources in lists.items():
        for source in sources:
            for line in filter(None, read_text(source).splitlines()):
                path = next((p for root in (source.parent, source.parent.parent) if (p := root / line).is_file()), None)
                if path is None:
                    raise ValueError(f"{source}: {line} is no file")
                if (row := source_row(path.resolve())) is None:
                    raise ValueError(f"{path}: no SOURCES.csv above it names its licence")
                licence = row["licence"].partition(" (")[0]
                known = (row.get(key, "") for key in ("sex", "language"))
                key = (
                    name,
                    row.get("corpus") or row["repo"].split("/")[0],
                    row["speaker"],
                    *known,
                    licence,
                    row["repo"],
                )
                found.setdefault(key, []).append(audio_info(path).duration)
    return [
        {**dict(zip(FIELDS, key, strict=True)), "recordings": len(times), "seconds": round(sum(times), 1)}
        for key, times in sorted(found.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--held-out", type=Path, nargs="+", default=[])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = speakers({"train": args.train, "held out": args.held_out})
    with open(args.out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    people = {(row["corpus"], row["speaker"]) for row in rows}
    print(f"{args.out}: {len(people)} speakers, {sum(row['recordings'] for row in rows)} recordings")


if __name__ == "__main__":
    run_main(main, KeyError)
