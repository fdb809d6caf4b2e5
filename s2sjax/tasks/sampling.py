"""Drawing distinct examples: what every generated task shares."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import jax
import numpy as np

from s2sjax.errors import UserError

T = TypeVar("T")

HELD_OUT_SEED = 2_014
"""Seed of the dev and test sets that all seeds of a leak-free study share: the year of Sutskever,
Vinyals & Le."""


def generator(key: jax.Array) -> np.random.Generator:
    """A NumPy generator that is a pure function of a JAX key: text is made on the host."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def distinct(
    draw: Callable[[int], Sequence[T]],
    identity: Callable[[T], Hashable],
    size: int,
    seen: set[Hashable],
) -> list[T]:
    """The first `size` draws that are new under `identity`; `seen` grows by them.

    Draws in ever larger rounds until there are enough, so the caller makes sure that enough exist.
    """
    kept: list[T] = []
    round_size = max(64, size)
    while len(kept) < size:
        for item in draw(round_size):
            name = identity(item)
            if name not in seen:
                seen.add(name)
                kept.append(item)
                if len(kept) == size:
                    break
        round_size *= 2
    return kept


def leak_free(
    draw: Callable[[np.random.Generator, int], Sequence[T]],
    identity: Callable[[T], Hashable],
    sizes: dict[str, int],
    key: jax.Array,
) -> dict[str, list[T]]:
    """Splits in which nothing occurs twice; dev and test do not depend on `key`, train does."""
    seen: set[Hashable] = set()
    shared, own = generator(jax.random.key(HELD_OUT_SEED, impl="threefry2x32")), generator(key)
    split: dict[str, list[T]] = {}
    for name, rng in (("test", shared), ("dev", shared), ("train", own)):
        split[name] = distinct(lambda n, rng=rng: draw(rng, n), identity, sizes[name], seen)
    return split


def require(wanted: Iterable[int], existing: int, what: str) -> None:
    """Raise UserError when more distinct examples are asked for than exist."""
    total = sum(wanted)
    if total > existing:
        raise UserError(
            f"{total:,} distinct {what} are asked for (train + dev + test) "
            f"but only {existing:,} exist"
        )
