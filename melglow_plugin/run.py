"""``python -m melglow_plugin.run -m MODULE ...``: run a host's command with MelGlow registered.

In a recipe: ``./run.sh --python "python3 -m melglow_plugin.run" --vocoder_file exp/.../checkpoint.pkl``.
Like ``python``: ``-m MODULE``, ``-c CODE`` or a script, then its arguments. What is no file is a command on PATH.
"""

import os
import runpy
import shutil
import sys

from melglow_plugin import hook, processor

USAGE = "usage: python -m melglow_plugin.run (-m MODULE | -c CODE | SCRIPT) [ARGUMENTS]"


def main() -> None:
    """Install the hook, then run what ``python`` would run with the same arguments."""
    arguments = sys.argv[1:]
    while arguments and arguments[0] in ("-u", "-B", "-E", "-s"):  # of the interpreter, which is running already
        arguments.pop(0)
    if arguments[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return
    if not arguments or (arguments[0] in ("-m", "-c") and len(arguments) < 2):
        sys.exit(USAGE)
    processor.prepare()
    hook.install()
    kind = arguments.pop(0)
    if kind == "-m":
        # alter_sys below replaces argv[0] by the module's file, as python -m does.
        sys.argv = arguments
        sys.path[0] = ""
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        code = arguments.pop(0)
        sys.argv = ["-c", *arguments]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        script = _script(kind)
        sys.argv = [script, *arguments]
        sys.path[0] = os.path.dirname(os.path.realpath(script))
        runpy.run_path(script, run_name="__main__")


def _script(name: str) -> str:
    """The file of a script, or the command of that name; it exits with a line where there is neither."""
    if name.startswith("-"):
        sys.exit(f"{name}: no option that is known here; {USAGE}")
    for path in (name, os.path.join(name, "__main__.py")):  # as python runs a folder
        if os.path.isfile(path):
            return name
    return shutil.which(name) or sys.exit(f"{name}: no such file, and no such command on PATH")


if __name__ == "__main__":
    main()
