#!/usr/bin/env python3
"""Write the tables of benchmarks/voices.py into RESULTS.md, between its markers, from a JSON of scores."""

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "benchmarks"))
from voices_tables import tables

MARKED = re.compile(r"(<!-- scores: (\S+)(?: against (\S+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, folder: Path) -> str:
    """``text`` with the tables of each JSON that a marker ``<!-- scores: FILE against SYSTEM -->`` names."""

    def section(match: re.Match) -> str:
        data = json.loads((folder / match[2]).read_text(encoding="utf-8"))
        return f"{match[1]}\n{tables(data, data['systems'], set(data['clips']), match[3] or '')}\n{match[4]}"

    filled, count = MARKED.subn(section, text)
    if not count:
        raise ValueError("no marker <!-- scores: FILE --> ... <!-- end -->")
    return filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="RESULTS.md; files are named from its folder")
    args = parser.parse_args()
    args.results.write_text(filled(args.results.read_text(encoding="utf-8"), args.results.parent), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"results.py: {error}", file=sys.stderr)
        sys.exit(2)
