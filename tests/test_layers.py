"""The layers: every module has a place, imports point down, no circle, no file uses another file's private names."""

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

import melglow_plugin

ROOT = Path(melglow_plugin.__file__).parent
# From the top: a module imports from layers below its own, or from its own room. Rooms in one line do not know each
# other. What is not named here has no place, and fails.
LAYERS = [
    {"__main__", "cli", "hook", "run"},
    {"espnet", "coqui", "demo"},
    {"evaluation"},
    {"vocoder"},
    {"checkpoint", "training"},
    {"inference"},
    {"model", "mel"},
    {"files", "checks", "processor", "watch", "moved", "__init__"},
]
ALLOWED = {("__main__", "cli"), ("run", "hook"), ("__init__", "moved")}  # within one layer
# Other packages that these rooms import besides torch and numpy.
OTHERS = {"model": {"triton"}, "mel": {"matplotlib"}}
HOSTS = {"espnet2": "espnet", "espnet3": "espnet", "espnet": "espnet", "TTS": "coqui", "trainer": "coqui"}
FILES = sorted(ROOT.rglob("*.py"))
NAME = re.compile(r"melglow_plugin(?:\.[a-z_0-9]+)+")


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def resolved(name: str) -> str | None:
    """The module of this package that ``name``, or what it belongs to, stands in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, also by a literal string that names a module of this package."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not checked here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            found |= {node.value} & set(MODULES) if NAME.fullmatch(node.value) else set()
    return found


def inside(path: Path) -> set[str]:
    """Modules of this package that a file imports."""
    return {resolved(name) for name in imports(path) if name.split(".")[0] == "melglow_plugin"} - {None}


def place(name: str) -> int:
    """The number of a room's layer, from the top."""
    return next(number for number, rooms in enumerate(LAYERS) if name in rooms)


def may_import(user: str, used: str) -> bool:
    return user == used or place(user) < place(used) or (user, used) in ALLOWED


def test_every_module_has_a_place():
    assert {room(path) for path in FILES} == set().union(*LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    used = {room(MODULES[name]) for name in inside(path)}
    assert {other for other in used if not may_import(room(path), other)} == set()


def test_an_import_by_a_string_counts():
    assert "melglow_plugin.espnet.vocoder" in inside(ROOT / "espnet" / "__init__.py")
    assert "melglow_plugin.coqui.model" in inside(ROOT / "coqui" / "__init__.py")


def test_there_is_no_circle():
    """Of modules that need each other while they are imported, or later; a package's own file aside."""
    needs = {name: inside(path) - {name} for name, path in MODULES.items()}
    while needs:
        free = {name for name, others in needs.items() if not others & set(needs)}
        assert free, f"circle within {sorted(needs)}"
        needs = {name: others for name, others in needs.items() if name not in free}


def private(names) -> set[str]:
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@functools.cache
def private_names(path: Path) -> tuple[set[str], set[str], set[str]]:
    """Private names that a file defines or sets, those that it reads as ``x._name``, and those that it imports."""
    defined, read, imported = set(), set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                defined.add(node.name)
            case ast.Attribute():
                (read if isinstance(node.ctx, ast.Load) else defined).add(node.attr)
            case ast.Name(ctx=ast.Store()):
                defined.add(node.id)
            case ast.ImportFrom(module=str(source)) if source.startswith("melglow_plugin"):
                imported |= {alias.name for alias in node.names}
    return private(defined), private(read), private(imported)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_uses_private_names_of_another(path):
    own, read, imported = private_names(path)
    others = set().union(*(private_names(other)[0] for other in FILES if other != path))
    assert imported == set() and (read - own) & others == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_host_is_known_to_its_own_room_only(path):
    tops = {name.split(".")[0] for name in imports(path)}
    assert {top for top in tops if HOSTS.get(top, room(path)) != room(path)} == set()


@pytest.mark.parametrize("path", [path for path in FILES if room(path) in ("model", "mel")], ids=lambda path: path.stem)
def test_the_model_and_its_mel_import_torch_and_numpy_alone(path):
    tops = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert tops <= {"torch", "numpy", "melglow_plugin"} | OTHERS.get(room(path), set())


# Reading and writing of files, and the one place besides files/ that parses: YAML inside of a .zip.
PARSERS, PARSES = {"soundfile", "yaml", "json.load", "json.loads"}, {"espnet/pack.py": {"yaml"}}


@pytest.mark.parametrize(
    "path", [path for path in FILES if room(path) != "files"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_audio_json_and_yaml_are_read_and_written_in_one_place(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = imports(path) | {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert used & PARSERS == PARSES.get(str(path.relative_to(ROOT)), set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno - f.lineno >= 50}
    assert len(text.splitlines()) <= 300 and long == {}
