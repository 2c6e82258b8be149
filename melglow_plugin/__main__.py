"""``python -m melglow_plugin``: the command ``melglow``."""

import sys

from melglow_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main())
