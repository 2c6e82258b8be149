#!/usr/bin/env python3
"""Build sdist and wheel, install each into an empty environment, synthesize, uninstall, and list the files that remain.

python benchmarks/supply.py --pythons 3.12 3.13      # needs uv; torch comes from its cache or the registry
python benchmarks/supply.py --borrow                 # what the package needs is that of this environment
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SPEAK = (
    "import torch; from melglow_plugin import Vocoder; "
    "from melglow_plugin.checkpoint.pretrained import pretrained_model; "
    "v = Vocoder.from_pretrained(pretrained_model()); w = v(torch.full((80, 20), -2.0), seed=0); "
    "assert w.shape == (5120,) and bool(torch.isfinite(w).all())"
)


def run(*command, cwd: Path | None = None) -> str:
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}: status {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def ours(environment: Path) -> list[str]:
    """Files of an environment that have our name, byte code aside, which installers leave alone."""
    found = [p.relative_to(environment) for p in environment.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    return sorted(str(path) for path in found if any("melglow" in part for part in path.parts))


def installed(python: str, package: Path, folder: Path, borrow: bool) -> dict:
    """Facts of one installation: versions, whether it synthesizes, the hook, and the files that remain."""
    environment = folder / f"{python}_{package.suffix.strip('.')}"
    run("uv", "venv", "--python", python, environment)
    binary = environment / "bin" / "python"
    run("uv", "pip", "install", "--python", binary, *(["--no-deps"] if borrow else []), package)
    if borrow:  # behind its own folder, so that our package is the installed one
        site = next(environment.glob("lib/python*/site-packages"))
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    versions = run(
        binary, "-c", "import sys, torch, numpy; print(sys.version.split()[0], torch.__version__, numpy.__version__)"
    )
    files = len(ours(environment))
    run(binary, "-I", "-c", SPEAK, cwd=folder)
    where = run(binary, "-I", "-c", "import melglow_plugin; print(melglow_plugin.__file__)", cwd=folder).strip()
    if not Path(where).is_relative_to(environment):
        sys.exit(f"{where} was imported, not the installed package")
    melglow = environment / "bin" / "melglow"
    run(melglow, "hook", "enable", cwd=folder)
    hook = [name for name in ours(environment) if "hook.pth" in name or "hook.start" in name]
    run(melglow, "hook", "disable", cwd=folder)
    run("uv", "pip", "uninstall", "--python", binary, "melglow-plugin")
    return {"package": package.name, "python, torch, numpy": versions.split(), "files": files,
            "dependencies": "borrowed" if borrow else "installed",
            "hook files while enabled": len(hook), "left behind": ours(environment)}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pythons", nargs="+", default=["3.12"])
    parser.add_argument("--borrow", action="store_true", help="install without dependencies")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("uv", "build", "--out-dir", folder / "dist", ROOT)
        packages = sorted((folder / "dist").glob("*.whl")) + sorted((folder / "dist").glob("*.tar.gz"))
        found = [installed(python, package, folder, args.borrow) for python in args.pythons for package in packages]
    text = json.dumps(found, indent=2)
    print(text)
    (args.out / "supply.json").write_text(text + "\n")
    return int(any(one["left behind"] or one["hook files while enabled"] != 2 for one in found))


if __name__ == "__main__":
    sys.exit(main())
