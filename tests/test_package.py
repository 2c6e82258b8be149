import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import melglow_plugin

ROOT = Path(melglow_plugin.__file__).parent
CONTRACT = {
    "MelGlow", "WaveGlow", "LVCNet", "KernelPredictor", "location_variable_conv", "flow_nll", "MelConvention",
    "Vocoder",
}  # fmt: skip
# Imports point to lower layers, or stay in their own.
LAYERS = {
    "moved": 0, "hook": 0, "run": 0, "files": 0, "checks": 0, "processor": 0,
    "model": 1, "mel": 1,
    "inference": 2, "training": 3, "checkpoint": 4, "vocoder": 4, "evaluation": 5,
    "espnet": 6, "coqui": 6,
    "cli": 7,
}  # fmt: skip
HOSTS = {"espnet2": "espnet", "espnet3": "espnet", "espnet": "espnet", "TTS": "coqui", "trainer": "coqui"}
FILES = sorted(ROOT.rglob("*.py"))


def loaded_by(names, given=""):
    """Top-level modules that importing ``names`` adds in a fresh interpreter to those of ``given``."""
    lines = [f"import {given}" if given else "", "import sys", "before = set(sys.modules)", f"import {names}"]
    lines.append("print(*{name.split('.')[0] for name in set(sys.modules) - before})")
    return set(subprocess.check_output([sys.executable, "-c", "\n".join(lines)], text=True, cwd=ROOT.parent).split())


def imports(path):
    """Every module that a file imports, wherever in the file: (top-level name, module of this package or '')."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not checked here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found = names if node.module == "melglow_plugin" else [node.module]
        else:
            continue
        for name in found:
            top, _, rest = name.partition(".")
            yield top, rest.split(".")[0] if top == "melglow_plugin" else ""


def module_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def layer(module):
    return LAYERS[module]


MODULES = {module_of(path) for path in FILES}


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
    if importlib.util.find_spec(home) is None:
        pytest.skip(f"{home} is not written yet")
    assert getattr(melglow_plugin, name) is getattr(importlib.import_module(home), name)


def test_an_unknown_name_is_refused_by_name():
    with pytest.raises(AttributeError, match="MelGloww"):
        melglow_plugin.MelGloww  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    module = module_of(path)
    if module == "__init__":
        assert set(imports(path)) <= {("melglow_plugin", "moved"), ("importlib", "")}
        return
    inside = {other for _, other in imports(path)} & MODULES - {module}
    wrong = {other for other in inside if layer(other) > layer(module)}
    assert wrong == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_host_is_known_to_its_own_folder_only(path):
    assert {top for top, _ in imports(path) if HOSTS.get(top, module_of(path)) != module_of(path)} == set()


@pytest.mark.parametrize("host, other", [("espnet", "coqui"), ("coqui", "espnet")])
def test_hosts_do_not_know_each_other(host, other):
    files = [path for path in FILES if module_of(path) == host]
    assert other not in {name for path in files for _, name in imports(path)}


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p) in ("model", "mel")], ids=lambda path: path.stem)
def test_model_files_import_torch_and_numpy_alone(path):
    third_party = {top for top, _ in imports(path)} - set(sys.stdlib_module_names) - {"triton", "matplotlib"}
    assert third_party <= {"torch", "numpy", "melglow_plugin"}
