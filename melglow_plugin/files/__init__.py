"""Files of recordings, mels, lists and figures: read as numbers, refused in one line, written whole."""

from melglow_plugin.files.archives import load_torch
from melglow_plugin.files.arrays import read_array, read_mel
from melglow_plugin.files.audio import audio_bytes, audio_info, decode, read_any_wav, read_audio, read_wav, write_wav
from melglow_plugin.files.lists import (
    AUDIO_SUFFIXES,
    MEL_SUFFIXES,
    Entry,
    check_id,
    existing,
    files_in,
    keyed_lines,
    lines_of,
    listed,
    paths_in,
    read_scp,
    read_table,
    read_text,
)
from melglow_plugin.files.mappings import (
    MAX_FILE_BYTES,
    append_csv,
    check_log,
    read_csv,
    read_mapping,
    write_csv,
    write_json,
    write_yaml,
)
from melglow_plugin.files.writing import (
    OVERWRITE,
    atomic_write,
    check_folder,
    check_output,
    claim,
    guarded,
    make_folder,
    note_input,
    write_bytes,
    write_lines,
)
