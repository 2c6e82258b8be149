"""Files of recordings, mels, lists and figures: read as numbers, refused in one line, written whole."""

from melglow_plugin.files.arrays import read_array, read_mel
from melglow_plugin.files.audio import read_any_wav, read_audio, read_wav, write_wav
from melglow_plugin.files.lists import (
    AUDIO_SUFFIXES,
    MEL_SUFFIXES,
    Entry,
    check_id,
    existing,
    files_in,
    lines_of,
    listed,
    read_scp,
    read_table,
    read_text,
)
from melglow_plugin.files.mappings import MAX_FILE_BYTES, append_csv, check_log, read_csv, read_mapping
from melglow_plugin.files.writing import (
    atomic_write,
    check_output,
    claim,
    guarded,
    make_folder,
    note_input,
    write_bytes,
    write_lines,
)

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_FILE_BYTES",
    "MEL_SUFFIXES",
    "Entry",
    "append_csv",
    "atomic_write",
    "check_id",
    "check_log",
    "check_output",
    "claim",
    "existing",
    "files_in",
    "guarded",
    "lines_of",
    "listed",
    "make_folder",
    "note_input",
    "read_any_wav",
    "read_array",
    "read_audio",
    "read_csv",
    "read_mapping",
    "read_mel",
    "read_scp",
    "read_table",
    "read_text",
    "read_wav",
    "write_bytes",
    "write_lines",
    "write_wav",
]  # fmt: skip
