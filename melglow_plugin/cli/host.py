"""``melglow hook``."""

import argparse


def add_commands(command) -> None:
    """``hook``."""
    sub = command(hook, "hook", "melglow hook status")
    sub.add_argument("action", choices=("enable", "disable", "status"), help="write the file, remove it, or look")


def hook(args: argparse.Namespace) -> None:
    """A start-up file in this environment, so that ESPnet's and Coqui's own commands know MelGlow."""
    from melglow_plugin.cli import hook_file

    if args.action == "status":
        print("enabled" if hook_file.enabled() else "disabled")
        print(*hook_file.files(), sep="\n")
        return
    changed = {"enable": hook_file.enable, "disable": hook_file.disable}[args.action]()
    print(*[f"{'wrote' if args.action == 'enable' else 'removed'} {path}" for path in changed], sep="\n")
