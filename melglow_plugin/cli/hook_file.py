"""``melglow hook``: a start-up file in the active environment, so that every host command knows MelGlow by itself.

Nothing writes the file but this command; once the plugin is gone, it does nothing.
"""

import argparse
import sysconfig
from pathlib import Path

NAME = "melglow_plugin_hook"
CODE = """\
try:
 if not os.environ.get("MELGLOW_NO_HOOK"):
  from melglow_plugin.hook import start; start()
except Exception as error:
 if getattr(error, "name", "") != "melglow_plugin":
  print(f"melglow hook: {error!r}; MELGLOW_NO_HOOK=1 turns it off", file=sys.stderr)
"""
# A line of a .pth that begins with "import" is executed when the interpreter starts. After "__editable__" in the
# alphabet, which is the order of execution.
PTH = f"import os, sys; exec({CODE!r})  # written by: melglow hook enable\n"
# PEP 829, Python 3.15: it takes the place of such lines.
START = "melglow_plugin.hook:start\n"


def files(folder: str | Path | None = None) -> dict[Path, str]:
    """The two files and what they hold, in ``folder`` or the active environment's site-packages."""
    folder = Path(folder or sysconfig.get_path("purelib"))
    return {folder / f"{NAME}.pth": PTH, folder / f"{NAME}.start": START}


def enable(folder: str | Path | None = None) -> list[Path]:
    """Write the files; doing it again changes nothing."""
    wanted = files(folder)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return list(wanted)


def disable(folder: str | Path | None = None) -> list[Path]:
    """Remove the files; returns those that were there."""
    found = [path for path in files(folder) if path.exists()]
    for path in found:
        path.unlink()
    return found


def enabled(folder: str | Path | None = None) -> bool:
    """Whether both files are there, as this version writes them."""
    return all(path.is_file() and path.read_text(encoding="utf-8") == text for path, text in files(folder).items())


def add_commands(command) -> None:
    """``hook``."""
    sub = command(hook, "hook", "melglow hook status")
    sub.add_argument("action", choices=("enable", "disable", "status"), help="write the file, remove it, or look")


def hook(args: argparse.Namespace) -> None:
    """A start-up file in this environment, so that ESPnet's and Coqui's own commands know MelGlow."""
    if args.action == "status":
        print("enabled" if enabled() else "disabled", *files(), sep="\n")
        return
    changed, did = (enable(), "wrote") if args.action == "enable" else (disable(), "removed")
    print(*[f"{did} {path}" for path in changed] or ["it was not enabled"], sep="\n")
