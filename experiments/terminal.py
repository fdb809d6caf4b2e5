"""Import this first: while a script starts, Ctrl-C ends it without a traceback."""

import signal
import sys
from pathlib import Path

if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:  # not in a notebook
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from s2sjax.cli import main as main
