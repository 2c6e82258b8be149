"""``melglow``: the command line, a file for each group of commands."""

from melglow_plugin import processor

processor.prepare()  # before a command imports torch

from melglow_plugin.cli.parser import main

__all__ = ["main"]
