"""Asking a run to stop: Ctrl-C, SIGTERM, SIGHUP, SIGUSR1.

A thread reads the signals, because the main thread handles none while a program compiles. While a
run trains, the first signal is a request: the loop saves and ends. If the loop does not notice it
soon, or Ctrl-C is pressed again, the process ends at once. That harms no checkpoint.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from s2sjax.errors import stopped_by

GRACE = 4.0  # seconds that the training loop has to notice a request

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""What is handled, unless it was ignored before, as `nohup` ignores SIGHUP.

Slurm sends SIGUSR1 some time before the limit where it is asked to (``--signal``).
"""


class Stop:
    """Whether a signal has asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None  # its number
        self._training = False
        self._arrived = threading.Event()
        self._timer: threading.Timer | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @contextmanager
    def training(self) -> Iterator[None]:
        """While the caller looks at this object every second or so, and saves when it is asked."""
        self._training = True
        try:
            yield
        finally:
            self._training = False
            self.saving()

    def saving(self) -> None:
        """The loop has noticed: it may take the time it needs."""
        if self._timer is not None:
            self._timer.cancel()

    def request(self, number: int) -> None:
        """A signal has arrived."""
        if not self._training:
            end(number, "stopped")
        if self.signal is not None:
            if number == signal.SIGINT:
                end(number, "stopped at once")
            return  # Slurm sends SIGTERM twice: to every process, and once more through srun
        busy = (number, "stopped while a program compiled or ran")
        self._timer = threading.Timer(GRACE, end, busy)
        self._timer.daemon = True
        self._timer.start()
        self.signal = number
        self._arrived.set()
        with suppress(OSError, ValueError, AttributeError):  # a terminal that is gone
            if sys.stderr.isatty():
                print("stopping after this update (once more: at once)", file=sys.stderr)

    def wait(self) -> None:
        """Until the first request has been noted."""
        self._arrived.wait(1)


def end(number: int, what: str) -> None:
    """End the process, whatever its threads are doing."""
    try:
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        message = f"{what}: the same command goes on from the last checkpoint, if there is one"
        os.write(2, f"{show_cursor}{message}\n".encode())
    finally:  # also where nobody reads any more
        os._exit(stopped_by(number))


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Handle signals inside; in a thread other than the main one they are not handled."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] in handled:
                stop.request(number[0])

    handled = [s for s in SIGNALS if signal.getsignal(s) != signal.SIG_IGN]
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {s: signal.signal(s, lambda *_: stop.wait()) for s in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        thread.join()
        os.close(reader)
        stop.saving()
