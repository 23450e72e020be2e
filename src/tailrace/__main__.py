"""Runs `python -m tailrace`."""

import sys

from .cli.main import main

sys.exit(main())
