"""Import this first: while a script starts, signals end it without a traceback.

A batch job that is stopped then has not begun: its exit code, 75, says that it may start again.
"""

import os
import signal
import sys
from pathlib import Path

if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:  # not in a notebook
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(75))

try:
    from s2sjax.cli import main as main
except ValueError as error:  # JAX reads its environment variables while it is imported
    print(f"error: {error}: correct that environment variable, or unset it", file=sys.stderr)
    sys.exit(78)
