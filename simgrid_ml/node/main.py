"""``main.py plain|abort SCRIPT [ARG…]``: see ``script.py``; this file is only where it begins."""

import sys

from simgrid_ml.node.script import run

run(*sys.argv[1:])
