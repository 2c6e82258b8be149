"""``melglow demo``."""

import argparse

from melglow_plugin.cli.shared import natural


def add_commands(command) -> None:
    """``demo``."""
    example = "melglow demo\nmelglow demo --checkpoint pretrained/melglow_ljspeech --port 7861"
    sub = command(demo, "demo", example, model=True)
    sub.add_argument("--port", type=natural, default=7860, help="of 127.0.0.1; 0: any that is free (default: 7860)")


def demo(args: argparse.Namespace) -> None:
    """A page in the browser, served on this machine: try the models with a sentence or a recording."""
    from melglow_plugin.demo.app import serve

    serve(args.checkpoint, args.device, args.port)
