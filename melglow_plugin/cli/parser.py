"""``melglow``: parse, call, exit. Status 0 on success, 2 on bad input with one line on stderr."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from melglow_plugin import __version__
from melglow_plugin.checks import with_remedy
from melglow_plugin.cli import demo, evaluation, hook_file, mels, models, synthesis
from melglow_plugin.cli.shared import one_line, refinement, warnings_in_a_line
from melglow_plugin.files import guarded


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if not argv:
        parser.print_help()
        return 0
    args = parser.parse_args(argv)
    try:
        with warnings_in_a_line(f"melglow {args.command}"), guarded(getattr(args, "overwrite", False)):
            args.run(args)
            sys.stdout.flush()
    except BrokenPipeError:  # melglow info | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        print(f"melglow {args.command}: {one_line(with_remedy(error) or type(error).__name__)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"melglow {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """Mistakes of usage, too, are one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {one_line(message)} (see --help)\n")


class _Help(argparse.HelpFormatter):
    """Wraps a description, and leaves the lines of an example as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="melglow", description="MelGlow, a flow vocoder: mel in, speech out.")
    parser.add_argument("--version", action="version", version=f"melglow {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        run: Callable, name: str, example: str, *, model: bool = False, out: str = "", sample: bool = False
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=run.__doc__.splitlines()[0].replace("%", "%%"), description=run.__doc__,
            epilog=_example(example), formatter_class=_Help,
        )  # fmt: skip
        sub.set_defaults(run=run)
        if model:
            sub.add_argument("--checkpoint", default=None, help="model folder or Hub id (default: a pretrained one)")
            sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: cpu)")
        if out:
            sub.add_argument("-o", "--out", type=Path, required=True, help=out)
            sub.add_argument("--overwrite", action="store_true", help="replace what is there, unless it is an input")
        if sample:
            _sampling_options(sub)
        return sub

    for group in (synthesis, models, evaluation, mels, demo, hook_file):
        group.add_commands(command)
    return parser


def _sampling_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--sigma", type=float, default=0.6, help="std of the noise (default: 0.6)")
    sub.add_argument("--seed", type=int, default=0, help="same seed, same samples (default: 0)")
    rounds = (
        "rounds of refinement towards the mel, 0: none; auto: by how sharp it is; resynthesis: phases anew as well "
        "(default: the model's)"
    )
    sub.add_argument("--refine", type=refinement, metavar="ROUNDS", help=rounds)
    strength = "strength of sharpening, for blurred mels as of acoustic models; 0: none (default: the model's)"
    sub.add_argument("--sharpen", type=float, metavar="STRENGTH", help=strength)
    sub.add_argument("--skip-existing", action="store_true", help="leave wavs alone that are there")


def _example(lines: str) -> str:
    text = "\n".join(f"  {line}" for line in lines.splitlines())
    return f"example, from the root of the repository:\n{text}"
