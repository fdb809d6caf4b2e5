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


def shared_generator() -> np.random.Generator:
    """The generator of what all seeds share."""
    return generator(jax.random.key(HELD_OUT_SEED, impl="threefry2x32"))


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
    *,
    pooled: bool = False,
) -> dict[str, list[T]]:
    """Splits in which nothing occurs twice; dev and test do not depend on `key`, train does.

    Where some items are much likelier than others, whatever is drawn first has them all. `pooled`
    instead picks test and dev out of as many distinct items as all splits have together, so that
    every split has its share of them.
    """
    shared, seen = shared_generator(), set()

    def take(rng: np.random.Generator, size: int, seen: set[Hashable]) -> list[T]:
        return distinct(lambda n: draw(rng, n), identity, size, seen)

    if pooled:
        pool = take(shared, sum(sizes.values()), set())
        picked = [pool[i] for i in shared.permutation(len(pool)).tolist()]
        test, dev = picked[: sizes["test"]], picked[sizes["test"] :][: sizes["dev"]]
        seen = {identity(item) for item in test + dev}
    else:
        test = take(shared, sizes["test"], seen)
        dev = take(shared, sizes["dev"], seen)
    return {"test": test, "dev": dev, "train": take(generator(key), sizes["train"], seen)}


def require(wanted: Iterable[int], existing: int, what: str) -> None:
    """Raise UserError when more distinct examples are asked for than exist."""
    total = sum(wanted)
    if total > existing:
        raise UserError(
            f"{total:,} distinct {what} are asked for (train + dev + test) "
            f"but only {existing:,} exist"
        )
