"""``python -m melglow_plugin.run -m MODULE ...``: run a host's command with MelGlow registered.

In a recipe: ``./run.sh --python "python3 -m melglow_plugin.run" --vocoder_file exp/.../checkpoint.pkl``.
Like ``python``: ``-m MODULE``, ``-c CODE`` or a script, then its arguments.
"""

import os
import runpy
import sys

from melglow_plugin import hook, processor

USAGE = "usage: python -m melglow_plugin.run (-m MODULE | -c CODE | SCRIPT) [ARGUMENTS]"


def main() -> None:
    """Install the hook, then run what ``python`` would run with the same arguments."""
    arguments = sys.argv[1:]
    while arguments and arguments[0] in ("-u", "-B", "-E", "-s"):  # of the interpreter, which is running already
        arguments.pop(0)
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
        sys.argv = [kind, *arguments]
        sys.path[0] = os.path.dirname(os.path.realpath(kind))
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    main()
