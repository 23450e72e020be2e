"""Runs `python -m tailrace.rover`, which is `tailrace rover`."""

import sys

from ..cli.main import main

sys.exit(main(["rover", *sys.argv[1:]]))
