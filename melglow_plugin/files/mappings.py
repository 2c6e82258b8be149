"""JSON, YAML and CSV."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from melglow_plugin.files.lists import read_text
from melglow_plugin.files.writing import input_file, make_folder, write_bytes

MAX_FILE_BYTES = 2_000_000  # YAML is read at a few 100 kB a second
# A string, which stays; a comment, which goes. As Coqui's read_json_with_comments, and comments over several lines.
_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|/\*.*?(?:\*/|\Z)|//[^\n]*', re.DOTALL)


def read_mapping(path: Path) -> dict:
    """A JSON or YAML file of named values; ValueError names the file otherwise. Nothing in it executes.

    JSON may hold ``//`` and ``/* */`` comments, as Coqui TTS reads it.
    """
    import yaml

    path = input_file(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {MAX_FILE_BYTES}: no configuration")
    text, is_json = read_text(path), path.suffix.lower() == ".json"
    try:
        values = _json(text) if is_json else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no {'JSON' if is_json else 'YAML'}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, wanted named values")
    return values


def _json(text: str):
    try:
        return json.loads(text)
    except ValueError:  # without its comments; lines keep their numbers
        return json.loads(_COMMENT.sub(lambda found: found[1] or "\n" * found[0].count("\n"), text))


def write_json(path: Path, values) -> None:
    """A JSON file of plain values, in UTF-8."""
    write_bytes(path, f"{json.dumps(values, indent=2, ensure_ascii=False)}\n".encode())


def write_yaml(path: Path, values) -> None:
    """A YAML file of plain values, in UTF-8."""
    import yaml

    write_bytes(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())


def append_csv(path: Path, row: dict) -> None:
    """A row more, under the names of its columns.

    Raises:
        ValueError: the file has other columns, and so is something else.
        OSError: naming ``path``.
    """
    make_folder(path.parent)
    check_log(path, list(row))
    try:
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
    except OSError as error:  # a full disk is met without a name
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_log(path: Path, columns: list[str]) -> None:
    """ValueError where ``path`` is there and is no CSV of these columns."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, wanted a file")
    if not path.is_file() or not path.stat().st_size:
        return
    with open(path, "rb") as file:
        found = file.readline(10_000).decode("utf-8", "replace").strip()
    if found != ",".join(columns):
        raise ValueError(f"{path} is there already and begins with {found[:60]!r}, wanted {','.join(columns)!r}")


def write_csv(path: Path, rows: Sequence[Mapping]) -> None:
    """A line for each row, and a column for each name in any of them."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, file.getvalue().encode())


def read_csv(path: Path) -> list[dict[str, str]]:
    """A row each, by column."""
    return list(csv.DictReader(io.StringIO(read_text(path), newline="")))
