"""Signals end the process at once, except while it trains: then the first one is a request."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from s2sjax.errors import stopped_by
from s2sjax.train import stopping
from s2sjax.train.stopping import SIGNALS, Stop, stop_requests

# The main thread is in C, where Python handles no signal; `compiling` is the same for a program.
BUSY = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
COMPILING = """
import jax
step = lambda x: jax.numpy.tanh(x @ x)
def long(x):
    for _ in range(1_500): x = step(x)
    return x
lowered = jax.jit(long).lower(jax.numpy.ones((9, 9)))
print("busy", flush=True)
lowered.compile()
import time; time.sleep(60)
"""
SCRIPT = """
from s2sjax.errors import stopped_by
from s2sjax.train import stopping
from s2sjax.train.stopping import stop_requests
stopping.GRACE = 0.3
with stop_requests() as stop:
{body}
"""


def ended(body, *signals, pause=0.3, before=""):
    """Exit code, standard error, and seconds from the last signal to the end."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    script = before + SCRIPT.format(body=lines)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "busy\n"
        for number in signals:
            time.sleep(pause)
            sent = time.monotonic()
            process.send_signal(number)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, err, time.monotonic() - sent


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_what_is_busy_in_c_at_once_with_one_line(number):
    code, err, seconds = ended(f"print('busy', flush=True); {BUSY}", number)
    assert code == stopped_by(number)
    assert err == "stopped: the same command goes on from the last checkpoint, if there is one\n"
    assert seconds < 3


def test_a_signal_ends_a_compilation_at_once():
    code, err, seconds = ended(COMPILING, signal.SIGTERM)
    assert (code, err.count("\n")) == (75, 1)
    assert seconds < 5


TRAINING = f"with stop.training(): print('busy', flush=True); {BUSY}"


def test_a_training_that_does_not_notice_is_ended_after_a_while():
    code, err, seconds = ended(TRAINING, signal.SIGTERM)
    assert code == 75
    assert err.startswith("stopped while a program compiled or ran: the same command goes on")
    assert err.count("\n") == 1
    assert 0.2 < seconds < 5


PATIENT = "stopping.GRACE = 60\n" + TRAINING


def test_ctrl_c_pressed_twice_ends_the_training_at_once():
    code, err, seconds = ended(PATIENT, signal.SIGINT, signal.SIGINT)
    assert code == 130
    assert err.startswith("stopped at once: ")
    assert seconds < 3


def test_slurm_sends_sigterm_twice_and_that_is_one_request():
    code, err, seconds = ended(TRAINING, signal.SIGTERM, signal.SIGCONT, signal.SIGTERM, pause=0.02)
    assert code == 75
    assert err.startswith("stopped while a program compiled or ran: ")
    assert 0.2 < seconds < 5


def test_what_was_ignored_before_stays_ignored():
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    sent = signal.SIGHUP, signal.SIGTERM
    code, _, _ = ended(f"print('busy', flush=True); {BUSY}", *sent, before=ignore)
    assert code == 75  # as after `nohup`: only the second one ends it


def test_a_request_is_known_as_soon_as_the_signal_is_handled_and_saving_takes_its_time(monkeypatch):
    monkeypatch.setattr(stopping, "GRACE", 0.2)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with stop_requests() as stop:
        with stop.training():
            assert not stop
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop
            assert stop.signal == signal.SIGTERM
            stop.saving()
            time.sleep(0.4)
        assert stop.signal == signal.SIGTERM
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


def test_a_thread_that_is_not_the_main_one_handles_nothing():
    seen = []

    def use():
        with stop_requests() as stop:
            seen.append((bool(stop), type(stop)))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [(False, Stop)]
