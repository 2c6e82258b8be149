"""``melglow``: the command line, a file for each group of commands."""

from melglow_plugin.cli.parser import main

__all__ = ["main"]
