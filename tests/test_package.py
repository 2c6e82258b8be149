import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import melglow_plugin
from melglow_plugin import moved
from melglow_plugin.checkpoint import pretrained

ROOT = Path(melglow_plugin.__file__).parent
CONTRACT = {
    "MelGlow", "WaveGlow", "LVCNet", "LVCNetGenerator", "KernelPredictor", "location_variable_conv", "flow_nll",
    "MelConvention", "Vocoder",
}  # fmt: skip


def loaded_by(names, given=""):
    """Top-level modules that importing ``names`` adds in a fresh interpreter to those of ``given``."""
    lines = [f"import {given}" if given else "", "import sys", "before = set(sys.modules)", f"import {names}"]
    lines.append("print(*{name.split('.')[0] for name in set(sys.modules) - before})")
    return set(subprocess.check_output([sys.executable, "-c", "\n".join(lines)], text=True, cwd=ROOT.parent).split())


def test_importing_the_package_loads_nothing():
    assert loaded_by("melglow_plugin") - set(sys.stdlib_module_names) == {"melglow_plugin"}


def test_the_model_its_mel_and_its_data_need_torch_and_numpy_alone():
    names = ", ".join(f"melglow_plugin.{name}" for name in ("model.melglow", "model.loss", "mel", "checks"))
    added = loaded_by(names, given="torch, numpy") - set(sys.stdlib_module_names)
    assert added <= {"melglow_plugin", "torch", "numpy"}


def test_public_names_are_the_contracts():
    assert set(melglow_plugin.__all__) == CONTRACT <= set(dir(melglow_plugin))


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_public_names_resolve(name):
    home = f"melglow_plugin.{melglow_plugin._HOME[name]}"
    assert getattr(melglow_plugin, name) is getattr(importlib.import_module(home), name)


def test_an_unknown_name_is_refused_by_name():
    with pytest.raises(AttributeError, match="MelGloww"):
        melglow_plugin.MelGloww  # noqa: B018


@pytest.mark.parametrize("old", sorted(moved.MOVED))
def test_a_module_of_version_0_1_is_found_with_a_warning(old):
    sys.modules.pop(f"melglow_plugin.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"melglow_plugin.{old} is now melglow_plugin"):
        module = importlib.import_module(f"melglow_plugin.{old}")
    home = importlib.import_module(f"melglow_plugin.{moved.MOVED[old][0]}")
    name = next(name for name, value in vars(home).items() if not name.startswith("_") and callable(value))
    assert getattr(module, name) is getattr(home, name)
    with pytest.raises(AttributeError, match=f"module 'melglow_plugin.{old}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize(
    "owner, old, new",
    [
        ("MelConvention", "unbridgeable", "incompatible_fields"),
        ("MelConvention", "lag", "frame_offset"),
        ("Vocoder", "strangeness", "mel_mismatch"),
    ],
)
def test_a_renamed_method_is_found_with_a_warning(owner, old, new):
    cls = getattr(melglow_plugin, owner)
    stand_in = type(owner, (), {old: vars(cls)[old], new: lambda self, argument: argument})()
    assert callable(getattr(cls, new))
    with pytest.warns(DeprecationWarning, match=f"{owner}.{old} is now {new}"):
        assert getattr(stand_in, old)(3) == 3


@pytest.mark.parametrize("package", ["lib/python3.12/site-packages", "local/lib/python3.12/dist-packages", "Lib", "."])
def test_released_models_are_found_beside_a_package_installed_outside_the_interpreters_folder(
    tmp_path, monkeypatch, package
):
    place = (tmp_path / package).resolve()
    prefix = tmp_path / "local" if package.startswith("local") else tmp_path
    model = prefix / "share" / "melglow" / "melglow_universal"
    model.mkdir(parents=True)
    monkeypatch.setattr(pretrained, "__file__", str(place / "melglow_plugin" / "checkpoint" / "pretrained.py"))
    assert pretrained.pretrained_models() == [model]
