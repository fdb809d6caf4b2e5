"""Import this first: while a script starts, Ctrl-C ends it without a traceback."""

import signal
import sys
from pathlib import Path

if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:  # not in a notebook
    signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    from s2sjax.cli import main as main
except ValueError as error:  # JAX reads its environment variables while it is imported
    print(f"error: {error}: correct that environment variable, or unset it", file=sys.stderr)
    sys.exit(2)
