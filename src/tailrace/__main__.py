"""`python -m tailrace`."""

import sys

from .cli.main import main

# The reloader's child processes import this module too.
if __name__ == "__main__":
    sys.exit(main())
