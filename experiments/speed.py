"""How fast the ablation trains on this machine, and what it costs to compile and to hold.

The question: updates a second and replica of the notebook's model; start and compile time; memory.

The command: ``python experiments/speed.py [--seeds 10] [--epochs 5]``; for sentence pairs
``python experiments/speed.py --translation [--batches 20]``.

Time: two minutes on two CPU cores. What to expect: README, "Speed".

Both arms of the notebook's preset are trained, all replicas in one program, in each of the two ways
that `s2sjax.replicas.lift` knows. An epoch is timed as a whole and the median is quoted.

With ``--translation`` it is `translate.py base`, two layers of 256 units with attention, on drawn
pairs of Multi30k's size: 29,000, of 12.4 and 13 words on average, 8,000 and 6,000 symbols. Batches
are those of an epoch, in their order; the clock starts when every shape is compiled.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import reverse_vs_forward
import translate
from reverse_vs_forward import EXPERIMENT

from s2sjax.buckets import boundaries
from s2sjax.cli import Study, main, make_console, parse
from s2sjax.dropout import Rates
from s2sjax.errors import UserError
from s2sjax.fit import evaluate, make_programs
from s2sjax.group import updates_per_epoch
from s2sjax.preparation import Form, Prepared
from s2sjax.replicas import lift, use_all_cores
from s2sjax.report import Table
from s2sjax.translation import build, update_program
from s2sjax.vocab import SPECIALS
from s2sjax.words import WordVocabulary

PAIRS, SOURCES, TARGETS = 29_000, 8_000, 6_000
"""Of Multi30k, about: training pairs, symbols of the vocabularies."""


@dataclass(frozen=True)
class Speed:
    """What was asked for on the command line."""

    seeds: int = 10
    """Seeds of each of the two arms."""
    epochs: int = 5
    """Epochs timed, after the one that compiles."""
    translation: bool = False
    """Time the training on sentence pairs instead."""
    batches: int = 20
    """Batches of it that are timed."""


def peak_memory() -> str:
    """Most memory used so far: of the device where it tells, else of this process."""
    told = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in told:
        return f"{told['peak_bytes_in_use'] / 2**20:,.0f} MiB on the device"
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:,.0f} MiB"


def seconds_to_first_line(seeds: int) -> float:
    """From the start of Python to the first line of progress of the notebook's preset."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["notebook", "--seeds", str(seeds), "--workdir", f"{folder}/run"]
        command = [sys.executable, reverse_vs_forward.__file__, *options]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("epoch 1/"):
                    break
            passed = time.perf_counter() - started
            process.kill()
    return passed


def measure(asked: Speed) -> Table:
    """Train a few epochs and time them."""
    to_first_line = seconds_to_first_line(asked.seeds)
    study = EXPERIMENT.presets["notebook"][1]
    (group,) = EXPERIMENT.ablation("notebook", Study(study.run, asked.seeds)).groups
    programs = make_programs(group.trainer, group.mesh)
    state = group.init(programs)
    train, dev = group.examples("train"), group.examples("dev")
    devices = group.mesh.devices.flatten()
    used, other = ("in turns", "vmapped")
    if devices[0].platform != "cpu":
        used, other = other, used

    started = time.perf_counter()
    layouts = {used: programs.train_epoch.lower(state, train).compile()}
    compiling = time.perf_counter() - started
    state, _ = layouts[used](state, train)
    evaluate(programs, state.params, dev)
    started = time.perf_counter()
    evaluate(programs, state.params, dev)
    evaluating = time.perf_counter() - started
    peak = peak_memory()

    in_turns = other == "in turns"
    rival = lift(group.trainer.train_epoch, group.mesh, donate=(0,), in_turns=in_turns)
    layouts[other] = rival.lower(state, train).compile()
    seconds: dict[str, list[float]] = {name: [] for name in layouts}
    for epoch in range(asked.epochs + 1):
        for name, train_epoch in layouts.items():  # interleaved: machines drift
            started = time.perf_counter()
            state, losses = train_epoch(state, train)
            jax.block_until_ready(losses)
            if epoch:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)

    replicas, updates = len(group.replicas), updates_per_epoch(group.run)
    epochs, pace = study.run.train.epochs, statistics.median(seconds[used])
    looks = epochs // study.run.train.eval_every
    whole = epochs * pace + looks * evaluating
    rows = [
        ("devices", f"{len(devices)} x {devices[0].device_kind}, jax {jax.__version__}"),
        ("replicas", str(replicas)),
    ]
    for name, times in seconds.items():
        median = statistics.median(times)
        each = f"{updates / median:.1f} each, {replicas * updates / median:,.0f} in all"
        rows.append((f"updates a second, replicas {name}", each))
        spread = f"{median:.2f} s ({min(times):.2f} to {max(times):.2f})"
        rows.append((f"epoch, replicas {name}: median of {asked.epochs}", spread))
    rows += [
        (f"{epochs} epochs and {looks} evaluations, replicas {used}", f"{whole / 60:.1f} min"),
        ("from start to the first line of progress", f"{to_first_line:.1f} s"),
        ("compiling the training program", f"{compiling:.1f} s"),
        (f"evaluating {study.run.task.dev:,} questions, forced and free", f"{evaluating:.2f} s"),
        ("peak memory, of what a run uses", peak),
    ]
    return Table("Speed of the notebook's preset", ("what", "how much"), tuple(rows))


def drawn_pairs(pairs: int = PAIRS) -> Prepared:
    """Pairs of random words, as many and as long as Multi30k's German and English."""
    rng = np.random.default_rng(0)
    source = np.clip(np.rint(rng.normal(12.4, 4, pairs)), 2, 40).astype(int)
    target = np.clip(np.rint(source + rng.normal(0.6, 2, pairs)), 2, 41).astype(int)
    first = len(SPECIALS)
    read, written = (
        WordVocabulary(tuple(f"w{i}" for i in range(first, n))) for n in (SOURCES, TARGETS)
    )
    form = Form(read, written, turned=False)
    rows = [
        (
            [*rng.integers(first, SOURCES, m).tolist(), read.eos_id],
            [written.bos_id, *rng.integers(first, TARGETS, n).tolist(), written.eos_id],
        )
        for m, n in zip(source, target, strict=True)
    ]
    lengths = np.stack([source + 1, target + 2], axis=1)
    settings = translate.BASE.sentences
    buckets = boundaries(lengths, settings.buckets, settings.tokens_per_batch)
    return Prepared(settings, form, rows, lengths, buckets, [], [], {})


def measure_translation(batches: int, pairs: int = PAIRS) -> Table:
    """Compile every shape of a batch, then time some batches of an epoch."""
    run, prepared = translate.BASE, drawn_pairs(pairs)
    trainer = build(run, prepared)
    stream = prepared.batches(run.seed)
    rate, rates = jnp.float32(run.optim.learning_rate), Rates.of(run.model)
    state = jax.jit(trainer.init)(jax.random.key(0), rate, rates)
    total, programs = jnp.float32(0), {}
    update, started = update_program(trainer), time.perf_counter()
    for bucket, members in enumerate(stream.schedule.members):
        batch = stream.batch(bucket, members[: prepared.buckets[bucket].rows])
        programs[bucket] = update.lower(state, total, batch).compile()
    compiling = time.perf_counter() - started

    seconds, symbols = 0.0, 0.0
    for number in range(batches + 1):
        started = time.perf_counter()
        bucket, batch = next(stream)
        state, total, loss = programs[bucket](state, total, batch)
        jax.block_until_ready(loss)
        if number:  # the first one warms up
            seconds += time.perf_counter() - started
            symbols += float(trainer.scored(batch.examples.target, batch.weight).sum())
    waste, device = stream.schedule.waste(), jax.devices()[0]
    shapes = ", ".join(" x ".join(map(str, bucket)) for bucket in prepared.buckets)
    epoch = len(stream) * seconds / batches
    rows = (
        ("device", f"{device.device_kind}, jax {jax.__version__}"),
        ("target symbols a second, end symbols counted", f"{symbols / seconds:,.0f}"),
        ("updates a second", f"{batches / seconds:.2f}"),
        (f"an epoch of {len(stream)} batches, at this pace", f"{epoch:.0f} s"),
        ("shapes: source x target x rows", shapes),
        ("padding, of source and of target positions", f"{waste.source:.1%}, {waste.target:.1%}"),
        (f"compiling the update for {len(programs)} shapes", f"{compiling:.1f} s"),
        ("peak memory", peak_memory()),
    )
    note = f"{batches} batches, timed after the first; reading and padding rows are part of it."
    return Table("Speed of translate.py base", ("what", "how much"), rows, note)


def speed() -> None:
    """Parse, measure, print."""
    asked = parse(Speed, __doc__ or "")
    if min(asked.seeds, asked.epochs, asked.batches) < 1:
        raise UserError("--seeds, --epochs and --batches must be at least 1")
    if asked.translation and (asked.seeds, asked.epochs) != (Speed.seeds, Speed.epochs):
        raise UserError("--seeds and --epochs are not for --translation: it takes --batches")
    if not asked.translation and asked.batches != Speed.batches:
        raise UserError("--batches needs --translation")
    if asked.translation:
        make_console().print(measure_translation(asked.batches).rich())
        return
    use_all_cores()
    make_console().print(measure(asked).rich())


if __name__ == "__main__":
    main(speed)
