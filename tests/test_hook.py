"""The import hook, and the start-up file that installs it."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from melglow_plugin.cli import hook_file

ROOT = Path(__file__).parents[1]
KNOWN = "import sys; print(any(getattr(f, '__module__', '') == 'melglow_plugin.watch' for f in sys.meta_path))"


class Environment:
    """A virtual environment without pip, in which the plugin can be imported."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        self.site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
        self.plugin = self.site / "melglow_plugin"
        self.plugin.symlink_to(ROOT / "melglow_plugin")

    def run(self, code: str, **environment: str) -> subprocess.CompletedProcess:
        command = [self.python, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=self.site)

    def knows(self, **environment: str) -> bool:
        return self.run(KNOWN, **environment).stdout.strip() == "True"


@pytest.fixture
def environment(tmp_path) -> Environment:
    return Environment(tmp_path / "venv")


def test_enabling_writes_into_the_active_environment_and_disabling_takes_it_back(environment):
    assert not environment.knows()
    before = set(environment.site.iterdir())
    for _ in range(2):  # twice is once
        environment.run("from melglow_plugin.cli.hook_file import enable, enabled; enable(); assert enabled()")
    assert {path.name for path in set(environment.site.iterdir()) - before} == {
        "melglow_plugin_hook.pth", "melglow_plugin_hook.start",
    }  # fmt: skip
    assert environment.knows()
    environment.run(
        "from melglow_plugin.cli.hook_file import disable, enabled; disable(); disable(); assert not enabled()"
    )
    assert set(environment.site.iterdir()) == before and not environment.knows()


def test_a_variable_opts_out(environment):
    hook_file.enable(environment.site)
    assert environment.knows() and not environment.knows(MELGLOW_NO_HOOK="1")


def test_it_is_harmless_once_the_plugin_is_gone(environment):
    hook_file.enable(environment.site)
    environment.plugin.unlink()
    result = environment.run(KNOWN)
    assert result.stdout.strip() == "False" and result.stderr == ""


def test_a_plugin_that_fails_is_one_line_which_the_variable_silences(environment):
    hook_file.enable(environment.site)
    environment.plugin.unlink()
    environment.plugin.mkdir()
    (environment.plugin / "__init__.py").write_text("1 / 0")
    says = "melglow hook: ZeroDivisionError('division by zero'); MELGLOW_NO_HOOK=1 turns it off"
    assert set(environment.run(KNOWN).stderr.splitlines()) == {says}  # where lib64 is a link, Python reads it twice
    assert environment.run(KNOWN, MELGLOW_NO_HOOK="1").stderr == ""


def test_children_know_it_too_and_nothing_heavy_is_imported(environment):
    hook_file.enable(environment.site)
    code = f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {KNOWN!r}], text=True))"
    assert environment.run(code).stdout.strip() == "True"
    heavy = "import sys; print({'torch', 'numpy', 'TTS', 'espnet2'} & set(sys.modules))"
    assert environment.run(heavy).stdout.strip() == "set()"


def test_it_costs_less_than_ten_milliseconds():
    code = (
        "import time; start_time = time.process_time()\n"
        "from melglow_plugin.hook import start; start()\n"
        "print(time.process_time() - start_time)"
    )
    costs = [float(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)) for _ in range(3)]
    assert min(costs) < 0.01


def test_the_twin_of_python_3_15_names_what_the_pth_calls():
    module, _, name = hook_file.START.strip().partition(":")
    assert f"from {module} import {name}" in hook_file.PTH
    assert len(hook_file.PTH.splitlines()) == 1 and hook_file.PTH.startswith("import ")


def test_the_command_says_where_it_stands(environment, monkeypatch, capsys):
    from melglow_plugin.cli import main

    monkeypatch.setattr(hook_file.sysconfig, "get_path", lambda name: str(environment.site))
    said = []
    for action in ("status", "enable", "status", "disable", "status", "disable"):
        assert main(["hook", action]) == 0
        said.append(capsys.readouterr().out.split()[0])
    assert said == ["disabled", "wrote", "enabled", "removed", "disabled", "it"]  # it was not enabled


# python -m melglow_plugin.run


def host(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    environment = {"PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "melglow_plugin.run", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)


def test_a_command_on_path_runs_also_beside_a_folder_of_its_name(tmp_path):
    script = tmp_path / "bin" / "tts"
    script.parent.mkdir()
    (tmp_path / "tts").mkdir()
    script.write_text(f"#!/usr/bin/env python3\n{KNOWN}; print(sys.argv)\n")
    script.chmod(0o755)
    result = host("tts", "--text", "a", folder=tmp_path, PATH=str(script.parent))
    assert result.stdout == f"True\n{[str(script), '--text', 'a']}\n", result.stderr


def test_its_mistakes_of_usage_are_one_line(tmp_path):
    helped = host("--help", folder=tmp_path)
    assert helped.returncode == 0 and helped.stdout.startswith("usage: ")
    for name, says in (
        ("--version", "--version: no option"),
        ("nothing", "nothing: no such file, and no such command"),
    ):
        result = host(name, folder=tmp_path)
        assert result.returncode == 1 and result.stderr.startswith(says) and result.stderr.count("\n") == 1
