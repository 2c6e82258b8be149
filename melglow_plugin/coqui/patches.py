"""Changes of Coqui's modules, made once they are imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from melglow_plugin.checkpoint import any_file
from melglow_plugin.checkpoint.coqui import from_coqui, is_coqui, to_coqui
from melglow_plugin.checkpoint.folder import CONFIG_FILE, WEIGHTS_FILE
from melglow_plugin.watch import wrapping

GENERATOR = "lvcnet_generator"  # generator_model


def patch(module) -> None:
    """Make our vocoders known to one of Coqui's modules; doing it again changes nothing."""
    if module.__name__ == "TTS.api":
        _patch_api(module.TTS)
    elif hasattr(module, "Synthesizer"):
        _patch_synthesizer(module.Synthesizer)
    else:
        _patch_generators(module)


def _patch_api(api) -> None:
    """Without a configuration beside ``vocoder_path``, it would download a vocoder for a model that it has by name."""

    @wrapping(api, "__init__")
    def init(original, self, *args, **kwargs) -> None:
        if (path := kwargs.get("vocoder_path")) and not kwargs.get("vocoder_config_path") and (own := own_config(path)):
            kwargs["vocoder_config_path"] = str(own)
        original(self, *args, **kwargs)


def _patch_synthesizer(synthesizer) -> None:
    """It takes our model folders, and passes itself to a vocoder of ours, which reads the acoustic model's mel."""

    @wrapping(synthesizer, "_load_vocoder")
    def load_vocoder(original, self, model_file, model_config, **kwargs) -> None:
        with coqui_files(model_file, model_config) as files:
            original(self, *files, **kwargs)
        _adopt(self)

    @wrapping(synthesizer, "__setstate__")
    def setstate(original, self, state) -> None:
        original(self, state)
        _adopt(self)  # a copy, whose acoustic model may be exchanged


def _adopt(synthesizer) -> None:
    """Its vocoder, where it is one of ours, takes the mel of its acoustic model from now on."""
    vocoder = synthesizer.vocoder_model
    vocoder = getattr(vocoder, "model_g", vocoder)  # a GAN holds its generator
    if hasattr(vocoder, "set_acoustic_model"):
        vocoder.set_acoustic_model(synthesizer)


def own_config(model_file: str | Path) -> Path | None:
    """The configuration of a model of ours: of a folder, or beside a file; None: it is no model of ours."""
    path = Path(model_file)
    if path.is_dir():
        return path / CONFIG_FILE
    return path.parent / CONFIG_FILE if _in_folder(path) or is_coqui(path) else None


def _in_folder(path: Path) -> bool:
    """Whether it is one of the two files of a model folder."""
    return path.name in (CONFIG_FILE, WEIGHTS_FILE)


@contextmanager
def coqui_files(model_file: str, config_file: str | None) -> Iterator[tuple[str, str | None]]:
    """The two files that Coqui's Synthesizer takes as its vocoder.

    A model folder, or its ``model.safetensors``, is exported for the time of loading. A ``config_file`` that is not
    given is that beside a model of ours. Other files are left to Coqui.

    Raises:
        ValueError: no model is there; it is damaged, or of another configuration than ``config_file``; a mel that Coqui
            has not.
    """
    path, own = Path(model_file), own_config(model_file)
    if not config_file and "://" not in model_file and not path.exists():  # Coqui would speak of the configuration
        raise ValueError(f"vocoder_path {model_file}: no such file")
    if path.is_dir() or _in_folder(path):
        if config_file and own and Path(config_file).resolve() != own.resolve():
            raise ValueError(f"vocoder_config_path {config_file}: {model_file} is read with {own}")
        with TemporaryDirectory() as folder:
            model, config = to_coqui(any_file.load(path), folder)
            yield str(model), str(config)
    else:
        config_file = config_file or (own and str(own))
        if config_file and path.is_file() and is_coqui(path, config_file):
            from_coqui(path, config_file)  # Coqui reads it with messages of many lines that name no file
        yield model_file, config_file


def _patch_generators(module) -> None:
    """``setup_generator``, a closed list of names, makes LVCNet's generator, too."""

    @wrapping(module, "setup_generator")
    def setup_generator(original, c):
        if c.generator_model.lower() != GENERATOR:
            return original(c)
        from melglow_plugin.coqui.gan import LVCnetGenerator

        return LVCnetGenerator(c)
