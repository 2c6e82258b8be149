"""``python -m melglow_plugin.cli``."""

import sys

from melglow_plugin.cli.parser import main

if __name__ == "__main__":
    sys.exit(main())
