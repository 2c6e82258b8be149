"""``python -m melglow_plugin.espnet.pack TTS.zip --vocoder_file checkpoint.pkl -o OUT.zip``: a TTS pack with a vocoder.

``espnet synthesize --model OUT.zip`` and ``Text2Speech.from_pretrained("OUT.zip")`` then synthesize with MelGlow.
"""

import argparse
import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from melglow_plugin.checkpoint import any_file
from melglow_plugin.checkpoint.espnet import from_espnet_pack, to_espnet
from melglow_plugin.checks import run_main
from melglow_plugin.espnet.vocoder import is_model, names_melglow
from melglow_plugin.files import atomic_write, guarded, note_input

META = "meta.yaml"  # of a pack: which file serves which argument of Text2Speech
FOLDER = "melglow"  # in the new pack


def add_vocoder(pack: str | Path, vocoder_file: str | Path, out: str | Path, config_file: str | Path | None = None):
    """Copy a pack of ``espnet2.bin.pack tts`` and put MelGlow into it.

    Args:
        pack: a ``.zip`` with ``meta.yaml``.
        vocoder_file: a model folder, or ``checkpoint.pkl`` of ``melglow export --format espnet``.
        out: the new ``.zip``.
        config_file: the ``config.yml`` of a ``checkpoint.pkl``; None: the one beside it.

    Raises:
        ValueError: a file is missing, damaged, or of another kind; the message names it.
    """
    pack, vocoder_file, out = Path(pack), Path(vocoder_file), Path(out)
    if not config_file and vocoder_file.exists() and is_model(vocoder_file):
        with TemporaryDirectory() as folder:
            return add_vocoder(pack, to_espnet(any_file.load(vocoder_file), folder)[0], out)
    config_file = Path(config_file) if config_file else vocoder_file.parent / "config.yml"
    if not vocoder_file.is_file() or not names_melglow(vocoder_file, config_file):
        raise ValueError(f"vocoder_file {vocoder_file} with {config_file}: no exported MelGlow")
    from_espnet_pack(vocoder_file, config_file)  # a damaged one is refused here, not where the pack is used
    if not pack.is_file() or not zipfile.is_zipfile(pack) or META not in zipfile.ZipFile(pack).namelist():
        raise ValueError(f"{pack} is no .zip with {META}, as espnet2.bin.pack writes it")
    if out.exists() and out.samefile(pack):
        raise ValueError(f"{out} is the pack itself: give the new one another name")
    for path in (pack, vocoder_file, config_file):
        note_input(path)
    with (
        _opened(pack) as source,
        atomic_write(out, "part") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        meta = _meta(source, pack)
        meta["files"]["vocoder_file"] = f"{FOLDER}/{vocoder_file.name}"
        meta["yaml_files"]["vocoder_config"] = f"{FOLDER}/{config_file.name}"
        target.writestr(META, yaml.safe_dump(meta))
        for info in source.infolist():
            if info.filename != META and not info.filename.startswith(f"{FOLDER}/"):
                target.writestr(info, source.read(info))
        target.write(vocoder_file, meta["files"]["vocoder_file"])
        target.write(config_file, meta["yaml_files"]["vocoder_config"])


@contextlib.contextmanager
def _opened(pack: Path) -> Iterator[zipfile.ZipFile]:
    """The pack, to read; what is damaged in it is a ValueError that names it."""
    try:
        with zipfile.ZipFile(pack) as source:
            yield source
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: encrypted
        raise ValueError(f"{pack}: {error}") from error


def _meta(source: zipfile.ZipFile, pack: Path) -> dict:
    """``meta.yaml`` with its two sections; ValueError where it does not name the files of a tts model."""
    try:
        meta = yaml.safe_load(source.read(META))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{pack}: {META} is no YAML: {error}") from error
    if not isinstance(meta, dict):
        raise ValueError(f"{pack}: {META} holds a {type(meta).__name__}, wanted named values")
    sections = {name: meta.get(name) or {} for name in ("files", "yaml_files")}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ValueError(f"{pack}: {name} of {META} is a {type(section).__name__}, wanted named values")
    for key in ("train_config", "model_file"):
        if key not in {**sections["files"], **sections["yaml_files"]}:
            raise ValueError(f"{pack}: {META} names no {key}, so it is no pack of a tts model")
    return {**meta, **sections}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="melglow_plugin.espnet.pack", description="Put a vocoder into a TTS pack.")
    parser.add_argument("pack", help=".zip of espnet2.bin.pack tts")
    parser.add_argument("--vocoder_file", required=True, help="model folder, or checkpoint.pkl of melglow export")
    parser.add_argument("--vocoder_config", help="config.yml of a checkpoint.pkl; default: beside it")
    parser.add_argument("-o", "--outpath", required=True, help="the new .zip")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there, unless it is an input")
    args = parser.parse_args()
    with guarded(args.overwrite):
        add_vocoder(args.pack, args.vocoder_file, args.outpath, args.vocoder_config)
    print(args.outpath)


if __name__ == "__main__":
    run_main(main)
