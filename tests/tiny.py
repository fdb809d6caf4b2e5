"""Tiny runs of sums and of sentence pairs, for tests of training and of what was trained."""

import random
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import jax
import numpy as np

from s2sjax.config import Model, Optimiser, Text, Training
from s2sjax.data.sentences import Sentences
from s2sjax.data.toys import Toy
from s2sjax.study.group import Group
from s2sjax.train.loop import LoopState, Stack
from s2sjax.train.run import Run

SUMS = Run(
    Toy(symbols=4, max_length=4, train=50, dev=20, test=20),
    model=Model(hidden_size=8),
    train=Training(epochs=3, batch_size=16, eval_every=2, checkpoint_every=2),
)

WORDS = {f"w{i}": f"v{i}" for i in range(6)}


def lines(seed: int, n: int) -> str:
    """Sentences word for word; a name now and then, each only once, stays as it is."""
    rng, found = random.Random(seed), []
    for i in range(n):
        words = [rng.choice([*WORDS]) for _ in range(1 + i % 5)]
        if i % 5 == 2:
            words[rng.randrange(len(words))] = f"name{seed}x{i}"
        found.append(f"{' '.join(words)}\t{' '.join(WORDS.get(w, w) for w in words)}\n")
    return "".join(found)


@cache
def files(train: int = 50) -> Sentences:
    """The same files for all tests of a process."""
    folder = Path(mkdtemp(prefix="s2sjax-tests-"))
    for seed, (name, n) in enumerate({"train": train, "dev": 12, "test": 14}.items()):
        (folder / f"{name}.tsv").write_text(lines(seed, n))
    return Sentences(*(str(folder / f"{name}.tsv") for name in ("train", "dev", "test")))


@cache
def sentences(**task: bool) -> Run:
    """Words, length buckets, attention."""
    return Run(
        replace(files(), **task),
        Text(source_unit="words", target_unit="words", min_count=2),
        Model(hidden_size=8, embed_dim=4, attention="dot"),
        Optimiser(clip=1.0),
        replace(SUMS.train, batch_size=8, tokens_per_batch=64, buckets=2),
    )


def orders(run: Run) -> dict[str, Run]:
    """Two arms of one program."""
    turned = replace(run, text=replace(run.text, source_order="reversed"))
    return {"forward": run, "reversed": turned}


@cache
def group(kind: str, seeds: int = 1) -> Group:
    """Two arms of sums, of sentences, or of sentences that are streamed."""
    run = {"sums": lambda: SUMS, "sentences": sentences, "streamed": lambda: sentences(stream=True)}
    return Group(orders(run[kind]()), seeds, 0)


@cache
def stack_of(kind: str, seeds: int = 1) -> Stack:
    """Its rows; compiled programs are shared by all that are equal."""
    return group(kind, seeds).stack()


def begin(kind: str, seeds: int = 1) -> LoopState:
    """Before the first update."""
    return group(kind, seeds).begin(stack_of(kind, seeds))


def same(a, b):
    """Bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def row(tree, i):
    """One replica of a stack."""
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)


def config(arms: Mapping[str, Run], seeds: int) -> dict:
    """What a workdir holds."""
    from s2sjax.serial import to_json

    return {"arms": {a: to_json(r) for a, r in arms.items()}, "seeds": seeds, "first_seed": 0}
