#!/usr/bin/env python3
"""Write the tables of benchmarks/{voices,robustness,rates,tts}.py into a text, between its markers, from their JSON."""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "benchmarks"))
import rates
import robustness
import tts_tables
from voices_tables import tables

from melglow_plugin.checks import run_main

PLAIN = {"robustness": robustness.table, "rates": rates.table, "sentences": tts_tables.table}
MARKED = re.compile(
    r"(<!-- (scores|robustness|rates|sentences): (\S+)(?: against (\S+))?(?: without (\S+))? -->\n).*?(<!-- end -->)",
    re.DOTALL,
)


def filled(text: str, folder: Path) -> str:
    """``text`` with the tables of each JSON that a marker names, in ``folder``.

    Markers: ``<!-- scores: FILE against SYSTEM without SPEAKER,SPEAKER -->`` (both words may be missing; with speakers
    left out there are no groups), ``<!-- KIND: FILE -->`` for the kinds in ``PLAIN``; up to ``<!-- end -->``.
    """

    def section(match: re.Match) -> str:
        start, kind, name, against, without, end = match.groups()
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        if kind != "scores":
            return f"{start}\n{PLAIN[kind](data)}\n{end}"
        left_out = (without or "").split(",")
        clips = {key for key, facts in data["clips"].items() if facts["speaker"] not in left_out}
        return f"{start}\n{tables(data, _ordered(data['systems']), clips, against or '', not without)}\n{end}"

    filled, count = MARKED.subn(section, text)
    if not count:
        raise ValueError("no marker <!-- scores: FILE --> ... <!-- end -->")
    return filled


def _ordered(systems: Iterable[str]) -> list[str]:
    """The recordings, models of this recipe, then the others as they were scored."""
    return sorted(systems, key=lambda name: (name != "recordings", not name.startswith("universal")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="RESULTS.md or another; files are named from its folder")
    args = parser.parse_args()
    args.results.write_text(filled(args.results.read_text(encoding="utf-8"), args.results.parent), encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
