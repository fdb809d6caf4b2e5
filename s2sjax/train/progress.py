"""What a person at the terminal sees: a bar with time left, or plain lines where it is piped."""

import resource
import sys
from collections.abc import Iterable, Sequence

import jax
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from s2sjax.report.tables import printable

RIGHT, WRONG = "☑", "☒"
QUIET = 60.0  # seconds within a long epoch after which a line says how far it is


class _BarAboveScores(Progress):
    """A bar over the full width, and below it the scores: its task's description."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield from (Text(task.description) for task in self.tasks if task.description)


class EpochProgress:
    """Progress over epochs, a bar on a terminal, else lines; use it as a context manager."""

    def __init__(self, console: Console, first: int, epochs: int, updates: int | None = None):
        """Show epochs `first` + 1 to `epochs`, of so many `updates` of all replicas."""
        self.console = console
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._epochs, self._updates = epochs, updates
        self._bar = _BarAboveScores(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("elapsed{task.fields[left]}"),
            console=console,
            disable=not self._live,
            expand=True,
        )
        self._task = self._bar.add_task("", total=epochs, completed=first, left="")
        self._first, self._done, self._seconds, self._measured = first, float(first), 0.0, 0.0
        self._last = self._shown = self._bar.get_time()
        self._left, self._known = "", set[bool]()  # whether epochs with scores were, and without

    def __enter__(self) -> "EpochProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, epoch: int, scores: str | None) -> None:
        """An epoch is done; `scores` are its scores in words, None when there are no new ones.

        Lines are printed for epochs with scores, and for the first, to show the time left.
        """
        self._bar.update(self._task, description=scores)
        self._move(float(epoch), bool(scores) not in self._known)
        self._known.add(bool(scores))
        if scores or epoch == self._first + 1:
            self._print(f"epoch {epoch}/{self._epochs}", scores)

    def move(self, epochs: float, compiled: bool) -> None:
        """So many epochs are done, a fraction; what `compiled` since the last call was no progress.

        A line is printed once in `QUIET` seconds.
        """
        self._move(epochs, compiled)
        if self._last - self._shown > QUIET:
            self._print(f"epoch {epochs:.2f}/{self._epochs}")

    def _move(self, epochs: float, compiled: bool) -> None:
        now = self._bar.get_time()
        if not compiled:
            self._seconds += now - self._last
            self._measured += epochs - self._done
        self._last, self._done = now, epochs
        if self._measured:
            seconds = self._seconds / self._measured * (self._epochs - epochs)
            self._left = f"{duration(seconds)} left"
        left = self._left and f", {self._left}"
        self._bar.update(self._task, completed=epochs, left=left)

    def _print(self, *parts: str | None) -> None:
        self._shown = self._last
        if not self._live:
            line = "  ".join(filter(None, (*parts, self._speed(), self._left)))
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _speed(self) -> str:
        """Updates a second, scoring included, and the peak of memory, for the log of a job."""
        if not (self._measured and self._seconds and self._updates):
            return ""
        rate = self._updates * self._measured / self._seconds
        return f"{rate:,.0f} updates/s, {peak_memory()}"

    def show(self, rows: Iterable[tuple[str, str, Sequence[tuple[str, str, bool]]]]) -> None:
        """Print answered questions: (question, gold answer, [(arm, its answer, right), ...])."""
        for question, gold, answers in rows:
            line = Text(printable(f"  {question} = {gold}  "))
            for arm, answer, right in answers:
                line.append(printable(f"  {arm} {answer} "))
                line.append(RIGHT if right else WRONG, style="bold green" if right else "bold red")
            self.console.print(line, soft_wrap=True)


def peak_memory() -> str:
    """The peak of an accelerator's memory so far, else of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if peak := stats.get("peak_bytes_in_use"):
        return f"{peak / 2**20:,.0f} MiB"
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of what getrusage counts in
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{peak / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds as a person says them: '12 s', '3 min 05 s', '2 h 10 min'."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s"
    return f"{s // 3600} h {s % 3600 // 60:02d} min"
