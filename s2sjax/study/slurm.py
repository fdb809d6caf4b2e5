"""The jobs of a sweep on Slurm: arrays whose tasks are jobs, and a last job that collects."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from s2sjax.errors import MachineError, UserError
from s2sjax.files import write_atomically
from s2sjax.study.sweep import Sweep

USUAL = 1001  # MaxArraySize where a cluster does not say another


def submit(sweep: Sweep, script: Path, options: Sequence[str]) -> Iterator[str]:
    """Submit the jobs that are neither finished nor in the queue; says line by line what it does.

    Line I of FOLDER/slurm/N.txt is the job of task I of array N. The array's name says which sweep
    and which N, so it is found again in the queue even if a kill came right after its submission.
    """
    root, folder = sweep.folder.resolve(), sweep.folder.resolve() / "slurm"
    name = f"s2sjax-{sha256(str(root).encode()).hexdigest()[:8]}"
    arrays, queued = set[str](), set[str]()
    shown = _output("squeue", "--me", "--noheader", "--array", "--format=%F|%K|%j")
    for line in shown.split():
        array, task, held = line.split("|", 2)
        number = held.removeprefix(f"{name}-")
        if held != number and number.isdecimal() and task.isdecimal():
            arrays.add(array)
            queued.add((folder / f"{number}.txt").read_text().splitlines()[int(task) - 1])
    if queued:
        yield f"{len(queued)} jobs wait or run already"
    todo = [job for job in sweep.unfinished() if job not in queued]
    limit = re.search(r"MaxArraySize\s*=\s*(\d+)", _output("scontrol", "show", "config"))
    most = int(limit[1] if limit else USUAL) - 1  # tasks are numbered from 1 to below the limit
    where = [f"--chdir={script.parents[1]}", f"--output={folder}/%j.out"]
    batch = ["sbatch", "--parsable", *where, *options]
    for first in range(0, len(todo), most):
        jobs = todo[first : first + most]
        number = 1 + max((int(path.stem) for path in folder.glob("*.txt")), default=0)
        listed = folder / f"{number}.txt"
        write_atomically(listed, "".join(f"{job}\n" for job in jobs))
        array = [f"--array=1-{len(jobs)}", f"--job-name={name}-{number}"]
        file = script.parent / "jobs" / "sweep.sbatch"
        submitted = _output(*batch, *array, str(file), str(root), str(listed)).partition(";")[0]
        write_atomically(listed.with_suffix(".id"), f"{submitted}\n")
        arrays.add(submitted)
        yield f"array {submitted}: {len(jobs)} jobs, {listed}"
    if todo:
        after = [f"--dependency=afterany:{':'.join(sorted(arrays))}", f"--job-name={name}-collect"]
        collect = shlex.join([sys.executable, str(script), "collect", str(root)])
        yield f"job {_output(*batch, *after, '--wrap', collect)}: collects when they have ended"


def _output(*words: str) -> str:
    """What a command of Slurm prints; an error of one line where it cannot be run or fails."""
    environment = {**os.environ, "PYTHON": sys.executable}  # which sweep.sbatch starts
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
    except OSError as error:
        raise UserError(f"{words[0]} cannot be run ({error.strerror}): is Slurm here?") from error
    if done.returncode:
        raise MachineError(f"{words[0]} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()
