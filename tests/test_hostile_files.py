"""Files that want to bite: refused with one line and status 2, nothing executed, memory bounded."""

import io
import json
import os
import pickle
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import stir

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.checkpoint.coqui import to_coqui
from melglow_plugin.checkpoint.espnet import to_espnet
from melglow_plugin.cli import main
from melglow_plugin.files import MAX_FILE_BYTES
from melglow_plugin.model.melglow import MAX_PARAMETERS, MODELS, check_sizes, most_parameters

CONF = {"fs": 22_050, "n_fft": 256, "hop_length": 64, "n_mels": 20}
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}
ROUTES = ("ours", "espnet", "pack", "coqui")
CONFIG = {"ours": "config.json", "espnet": "config.yaml", "pack": "config.yml", "coqui": "config.json"}
WEIGHTS = {"ours": "model.safetensors", "espnet": "best.pth", "pack": "checkpoint.pkl", "coqui": "model.pth"}
UNPICKLED = ("espnet", "pack", "coqui")
MEMORY = 400 * 2**20  # bytes that a refusal may add to the peak


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    torch.manual_seed(0)
    return Vocoder(stir(MelGlow(**SIZES)), MelConvention.espnet(**CONF))


@pytest.fixture
def make(vocoder, tmp_path):
    """Writes a sound model in one of the four shapes and returns its folder."""

    def write(route: str) -> Path:
        folder = tmp_path / route
        if route == "ours":
            vocoder.save_pretrained(folder)
        elif route == "pack":
            to_espnet(vocoder.checkpoint, folder)
        elif route == "coqui":
            to_coqui(vocoder.checkpoint, folder)
        else:
            folder.mkdir()
            conf = {"vocoder": "melglow", "vocoder_conf": SIZES, "feats_extract_conf": CONF}
            (folder / "config.yaml").write_text(yaml.safe_dump(conf))
            torch.save({f"flow.{k}": v for k, v in vocoder.flow.state_dict().items()}, folder / "best.pth")
        return folder

    return write


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs ``melglow`` and asserts one line, status 2, nothing executed, and bounded memory; returns the line."""

    def run(*arguments) -> str:
        capsys.readouterr()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        status = main([str(argument) for argument in arguments])
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        said = capsys.readouterr().err
        assert status == 2 and said.count("\n") == 1 and len(said) < 2000, said
        assert grown < MEMORY
        assert not (tmp_path / "executed").exists()
        return said

    return run


@pytest.fixture
def convert(make, refused, tmp_path):
    """Damages a sound model of a route by a function of its folder, and has it refused."""

    def run(route: str, damage) -> str:
        folder = make(route)
        damage(folder)
        source = folder if route == "ours" else folder / WEIGHTS[route]
        said = refused("convert", source, "-o", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return said

    return run


def test_the_sound_models_load(make, tmp_path):
    for route in ROUTES:
        folder = make(route)
        source = folder if route == "ours" else folder / WEIGHTS[route]
        assert main(["convert", str(source), "-o", str(tmp_path / "out" / route)]) == 0


# Pickles


def pickled(route: str, value) -> dict:
    return {"espnet": {"model": {"flow.x": value}}, "pack": {"model": {"generator": value}}, "coqui": {"model": value}}[
        route
    ]


@pytest.mark.parametrize("route", UNPICKLED)
@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle", "tar"])
def test_a_payload_is_not_executed(convert, tmp_path, route, form):
    def damage(folder):
        state, path = pickled(route, Payload(tmp_path / "executed")), folder / WEIGHTS[route]
        if form == "zip":
            torch.save(state, path)
        elif form == "legacy":
            torch.save(state, path, _use_new_zipfile_serialization=False)
        elif form == "plain pickle":
            path.write_bytes(pickle.dumps(state))
        else:
            import tarfile

            with tarfile.open(path, "w") as archive:
                content = pickle.dumps(state)
                info = tarfile.TarInfo("storages")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    assert "holds more than tensors, or is damaged" in convert(route, damage)


@pytest.mark.parametrize("route", UNPICKLED)
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([1, 2], ""),
        ({"a": 3}, "wanted a plain tensor"),
        ({3: torch.ones(1)}, "wanted a plain tensor"),
        ({"a": torch.ones(2).to_sparse()}, "wanted a plain tensor"),
        ({"a": torch.ones(1).expand(10**12)}, "larger than what the file holds"),
    ],
    ids=["list", "number", "no name", "sparse", "a terabyte by stride 0"],
)
def test_what_is_no_tensor_of_that_name_is_refused(convert, route, value, says):
    def damage(folder):
        state = {"model": {"generator": value}} if route == "pack" else {"model": value}
        torch.save(state, folder / WEIGHTS[route])

    said = convert(route, damage)
    assert says in said and WEIGHTS[route] in said


@pytest.mark.parametrize("route", UNPICKLED)
def test_a_compressed_archive_cannot_unpack_to_more_than_the_file(convert, route):
    def damage(folder):
        path = folder / WEIGHTS[route]
        buffer = io.BytesIO()
        torch.save({"model": {"flow.x": torch.zeros(2**22)}}, buffer)
        with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for info in source.infolist():
                target.writestr(info.filename, source.read(info))
        assert path.stat().st_size < 2**18

    assert "unpack to 1677" in convert(route, damage)


@pytest.mark.parametrize("route", UNPICKLED)
@pytest.mark.parametrize("kept", [0, 1, 7, 100, 5000, -1, -30])
def test_a_file_cut_off_is_refused(convert, route, kept):
    path = WEIGHTS[route]
    assert path in convert(route, lambda folder: (folder / path).write_bytes((folder / path).read_bytes()[:kept]))


@pytest.mark.parametrize(
    ("last", "says"),
    [
        ("hop_size", "no configuration of an exported MelGlow"),
        ("squeeze_factor", "missing convention, training"),
        ("log_base", "missing training"),
    ],
)
def test_a_configuration_cut_off_is_refused(convert, last, says):
    def damage(folder):
        path = folder / CONFIG["pack"]
        lines = path.read_text().splitlines(keepends=True)
        end = max(number for number, line in enumerate(lines, 1) if line.strip().startswith(last))
        path.write_text("".join(lines[:end]))

    said = convert("pack", damage)
    assert "config.yml: " in said and says in said


def test_a_convention_without_some_of_its_fields_is_refused(convert):
    def damage(folder):
        path = folder / CONFIG["pack"]
        conf = yaml.safe_load(path.read_text())
        del conf["melglow"]["convention"]["log_base"], conf["melglow"]["convention"]["fmax"]
        path.write_text(yaml.safe_dump(conf))

    assert "config.yml: convention: missing fmax, log_base" in convert("pack", damage)


# safetensors


def header(entries: dict, data: bytes = b"\0" * 64) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(start: int, stop: int, shape: list | None = None, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": [(stop - start) // 4] if shape is None else shape, "data_offsets": [start, stop]}


SAFETENSORS = {
    "overlapping": header({"a": entry(0, 32), "b": entry(16, 48)}),
    "beyond the file": header({"a": entry(0, 4096)}),
    "a hole": header({"a": entry(0, 8), "b": entry(16, 64)}),
    "a negative offset": header({"a": entry(-8, 8)}),
    "sizes that overflow": header({"a": entry(0, 64, [2**63, 2])}),
    "a terabyte": header({"a": entry(0, 64, [2**38])}),
    "an unknown dtype": header({"a": entry(0, 64, dtype="PICKLE")}),
    "a header of 2**60 bytes": struct.pack("<Q", 2**60) + b"{}",
    "a header of 90 MB": struct.pack("<Q", 90_000_000) + b"{}",
    "depth 10,000": struct.pack("<Q", 60_000) + b'{"a":' * 10_000 + b"1" + b"}" * 9_999,
    "no header": struct.pack("<Q", 0),
    "no bytes": b"",
    "a pickle": pickle.dumps({"a": 1}),
    "metadata that is no text": header({"__metadata__": {"a": 1}, "a": entry(0, 64)}),
}


@pytest.mark.parametrize("content", SAFETENSORS.values(), ids=SAFETENSORS)
def test_a_damaged_safetensors_header_is_refused(convert, content):
    said = convert("ours", lambda folder: (folder / "model.safetensors").write_bytes(content))
    assert "model.safetensors is no whole safetensors file" in said


def resaved(change):
    from safetensors.torch import load_file, save_file

    def damage(folder):
        path = folder / "model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path)

    return damage


NAME = "convs_1x1.0.weight"
WEIGHT_FAULTS = {
    "shape": (lambda w: w.update({NAME: torch.ones(4, 16)}), "has shape (4, 16), the model wants (8, 8)"),
    "scalar": (lambda w: w.update({NAME: torch.ones(())}), "has shape ()"),
    "integers": (lambda w: w.update({NAME: torch.ones(8, 8, dtype=torch.int64)}), "(torch.int64) holds values"),
    "booleans": (lambda w: w.update({NAME: torch.ones(8, 8, dtype=torch.bool)}), "(torch.bool) holds values"),
    "complex": (lambda w: w.update({NAME: torch.ones(8, 8, dtype=torch.complex64)}), "(torch.complex64) holds values"),
    "float8": (lambda w: w.update({NAME: torch.ones(8, 8).to(torch.float8_e4m3fn)}), "(torch.float8_e4m3fn) holds"),
    "nan": (lambda w: w[NAME].fill_(float("nan")), "holds values that are no finite floats"),
    "missing": (lambda w: w.pop(NAME), "missing convs_1x1.0.weight"),
    "extra": (lambda w: w.update({"../../evil": torch.ones(1)}), "unknown ../../evil"),
}


@pytest.mark.parametrize(("change", "says"), WEIGHT_FAULTS.values(), ids=WEIGHT_FAULTS)
def test_weights_that_do_not_fit_are_named(convert, change, says):
    assert says in convert("ours", resaved(change))


# Configurations


def edit(route: str, section: str, field: str, value):
    """Sets a field of the model's sizes or of its mel, wherever the route's configuration keeps it."""
    sections = {
        ("ours", "model"): ("model",), ("ours", "mel"): ("convention",),
        ("espnet", "model"): ("vocoder_conf",), ("espnet", "mel"): ("feats_extract_conf",),
        ("pack", "model"): ("melglow", "model"), ("pack", "mel"): ("melglow", "convention"),
        ("coqui", "model"): ("model_params",), ("coqui", "mel"): ("mel_convention",),
    }[route, section]  # fmt: skip

    def damage(folder):
        path = folder / CONFIG[route]
        values = (json.loads if path.suffix == ".json" else yaml.safe_load)(path.read_text())
        inner = values
        for key in sections:
            inner = inner[key]
        inner[field] = value
        text = json.dumps(values) if path.suffix == ".json" else yaml.safe_dump(values)
        path.write_text(text)

    return damage


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", 10**9),
        ("channels", -1),
        ("channels", "4"),
        ("channels", None),
        ("n_flows", 10**9),
        ("n_layers", 10**6),
        ("predictor_channels", 65_000),
        ("predictor_layers", 10**8),
        ("kernel_size", 2.5),
        ("max_log_s", float("nan")),
        ("mel_gain", "yes"),
        ("early_every", [1]),
    ],
)
def test_sizes_that_are_none_are_refused_by_field_at_no_cost(convert, route, field, value):
    said = convert(route, edit(route, "model", field, value))
    assert CONFIG[route] in said and (field in said or "parameters, more than" in said)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("field", "value"),
    [("n_fft", 10**12), ("n_fft", "x"), ("fmin", float("nan")), ("fmax", "x"), ("center", "no"), ("surprise", 1)],
)
def test_a_mel_that_is_none_is_refused_by_field(convert, route, field, value):
    said = convert(route, edit(route, "mel", field, value))
    assert CONFIG[route] in said and field in said


@pytest.mark.parametrize("kind", MODELS)
def test_the_estimate_of_parameters_is_an_upper_bound_and_near(kind):
    import inspect

    stack = "n_blocks" if kind == "lvcnet" else "n_flows"
    for changes in ({}, {"channels": 8}, {stack: 2}, {"n_mels": 20}, {"n_layers": 2}):
        values = {name: p.default for name, p in inspect.signature(MODELS[kind]).parameters.items()} | changes
        check_sizes(kind, values)
        found = sum(p.numel() for p in MODELS[kind](**values).parameters())
        assert found <= most_parameters(**values) < 1.8 * found < MAX_PARAMETERS


@pytest.mark.parametrize("route", ROUTES)
def test_a_configuration_of_100_mb_is_not_read(convert, route):
    def damage(folder):
        with open(folder / CONFIG[route], "r+b") as file:
            file.truncate(100_000_000)

    said = convert(route, damage)
    # Without a readable config.json beside it, a .pth is taken for one of ESPnet's trainer.
    assert ("100000000 bytes" in said) or (route == "coqui" and "config.yaml is missing" in said)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("opening", ["[", '{"a": '])
def test_a_depth_of_10_000_is_refused(convert, route, opening):
    said = convert(route, lambda folder: (folder / CONFIG[route]).write_text(opening * 10_000))
    assert " is no " in said or (route == "coqui" and "config.yaml is missing" in said)


@pytest.mark.parametrize("route", ["espnet", "pack"])
@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir ['{executed}']",
        "a: !!python/object/new:os.mkdir ['{executed}']",
        "a: !!python/name:os.system",
        "!!python/module:antigravity",
        "a: *nowhere",
        "\tno: yaml",
    ],
)
def test_yaml_with_object_tags_executes_nothing(convert, tmp_path, route, text):
    text = text.replace("{executed}", str(tmp_path / "executed"))
    said = convert(route, lambda folder: (folder / CONFIG[route]).write_text(text))
    assert f"{CONFIG[route]} is no YAML" in said


@pytest.mark.parametrize("route", ["espnet", "pack"])
def test_a_value_that_aliases_make_a_billion_long_is_not_spelled_out(convert, route):
    lines = ['l0: &l0 ["lol", "lol", "lol"]'] + [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10)]
    name = {
        "espnet": "vocoder_conf: {channels: *l9}\nvocoder: melglow\nfeats_extract_conf: {}",
        "pack": "melglow: {architecture: melglow, model: {channels: *l9}, convention: {}, training: {}}",
    }[route]
    said = convert(route, lambda folder: (folder / CONFIG[route]).write_text("\n".join([*lines, name])))
    assert "channels [[[...]," in said


def test_text_that_is_none_is_refused(convert):
    for route in ("ours", "espnet", "pack"):
        said = convert(route, lambda folder, name=CONFIG[route]: (folder / name).write_bytes(b"\xff\xfe\x00mel\xff"))
        assert CONFIG[route] in said


# Paths


@pytest.mark.parametrize("key", ["../evil", "/tmp/evil", "a/../../evil"])
def test_an_id_that_leads_out_of_the_folder_is_refused(refused, tmp_path, key):
    np.save(tmp_path / "x.npy", np.zeros((80, 5), dtype=np.float32))
    (tmp_path / "feats.scp").write_text(f"{key} {tmp_path / 'x.npy'}\n")
    said = refused("synthesize", tmp_path / "feats.scp", "-o", tmp_path / "out")
    assert "leads out of the folder" in said
    assert not list(tmp_path.rglob("evil*"))


def test_a_path_in_a_configuration_is_read_as_numbers_only(refused, tmp_path):
    """``stats_path`` of a Coqui configuration may name any file of this machine."""
    contents = {
        "secret.txt": b"the password",
        "pickle.npy": pickle.dumps(Payload(tmp_path / "executed")),
        "objects.npy": b"",
        "huge.npy": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "objects.npy", np.array({"mel_mean": Payload(tmp_path / "executed")}), allow_pickle=True)
    with open(tmp_path / "huge.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    (tmp_path / "sub").mkdir()
    for name in (*contents, "nothing.npy", "sub"):
        audio = {"num_mels": 80, "fft_size": 1024, "stats_path": str(tmp_path / "sub" / ".." / name)}
        (tmp_path / "config.json").write_text(json.dumps({"model": "glow_tts", "audio": audio}))
        said = refused("doctor", "--coqui", tmp_path / "config.json")
        assert "stats_path" in said and "password" not in said


# Arrays


def npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


ARRAYS = {
    "a huge shape": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (80, 1000000000000), }\n"),
    "a shape that overflows": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (80, 10**30), }\n"),
    "a negative shape": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-80, 3), }\n"),
    "code in the header": npy(b"{'descr': __import__('os').mkdir('executed'), 'shape': (1,)}\n"),
    "objects": npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + pickle.dumps([Payload("executed")]),
    "a pickle": pickle.dumps(Payload("executed")),
    "cut off": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (80, 9), }\n") + b"\0" * 8,
    "text": b"no array",
    "nothing": b"",
}


@pytest.mark.parametrize("content", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("command", ["synthesize", "doctor"])
def test_an_array_that_is_none_is_refused(make, refused, tmp_path, monkeypatch, command, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(content)
    model = ["--checkpoint", make("ours"), "-o", "out"] if command == "synthesize" else []
    assert "x.npy is no .npy of numbers" in refused(command, "x.npy", *model)


@pytest.mark.parametrize(
    "array",
    [np.array([{}]), np.zeros((2, 20, 5)), np.zeros(20), np.zeros((20, 5), int), np.zeros((20, 5), complex),
     np.zeros((20, 0), np.float32), np.full((20, 5), np.nan, np.float32), np.array([["a"]])],
    ids=["objects", "three dimensions", "one dimension", "integers", "complex", "no frames", "nan", "text"],
)  # fmt: skip
def test_an_array_that_is_no_mel_is_refused(make, refused, tmp_path, array):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    refused("synthesize", tmp_path / "x.npy", "--checkpoint", make("ours"), "-o", tmp_path / "out")
    assert not (tmp_path / "out" / "x.wav").exists()


@pytest.mark.parametrize("write", [torch.save, lambda payload, path: path.write_bytes(pickle.dumps(payload))])
def test_a_mel_of_torch_executes_nothing(make, refused, tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write({"mel": Payload("executed")}, tmp_path / "x.pt")
    assert "x.pt holds more than tensors" in refused("synthesize", "x.pt", "--checkpoint", make("ours"), "-o", "out")
    assert not Path("executed").exists()


def test_a_compressed_array_is_unpacked_within_a_limit(make, refused, tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", np.zeros((20, 50_000)))
    monkeypatch.setattr("melglow_plugin.files.archives.MAX_UNPACKED", 2**20)
    said = refused("synthesize", tmp_path / "x.npz", "--checkpoint", make("ours"), "-o", tmp_path / "out")
    assert "unpacks to 8000128 bytes, more than 1048576" in said


def test_a_mel_configuration_is_read_within_its_limit(refused, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((20, 5), dtype=np.float32))
    with open(tmp_path / "mel.yaml", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    said = refused("synthesize", tmp_path / "x.npy", "--convention", tmp_path / "mel.yaml", "-o", tmp_path / "out")
    assert f"more than {MAX_FILE_BYTES}" in said
