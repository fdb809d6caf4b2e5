"""Draws of distinct examples, and splits that cannot leak.

NumPy's generators may change with its versions: a test pins hashes of every task's questions.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from s2sjax.errors import UserError

T = TypeVar("T")
Draw = Callable[[np.random.Generator, int], Sequence[T]]  # that many examples, with replacement
Canonical = Callable[[Sequence[T]], Iterable[Hashable]]  # equal for what is the same
Pairs = list[tuple[str, str]]  # source and target strings

HELD_OUT_SEED = 2_014  # of the draws that all seeds of a study share


def split_sizes(task: object) -> dict[str, int]:
    """How many examples each split of a task has."""
    return {split: getattr(task, split) for split in ("train", "dev", "test")}


def generator(key: jax.Array) -> np.random.Generator:
    """NumPy's generator, seeded by a JAX key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def shared_generator() -> np.random.Generator:
    """The generator of the dev and test sets, which all seeds share."""
    return np.random.default_rng([0, HELD_OUT_SEED])


def distinct(
    draw: Draw[T],
    canonical: Canonical[T],
    size: int,
    rng: np.random.Generator,
    seen: set[Any],
) -> list[T]:
    """The first `size` draws whose canonical form is not in `seen`; these forms are added to it.

    It does not end where fewer exist: see `require_enough`.
    """
    kept: list[T] = []
    at_a_time = max(64, size)
    while len(kept) < size:
        drawn = draw(rng, at_a_time)
        for item, form in zip(drawn, canonical(drawn), strict=True):
            if form not in seen:
                seen.add(form)
                kept.append(item)
                if len(kept) == size:
                    break
        at_a_time *= 2
    return kept


def leak_free(
    draw: Draw[T],
    canonical: Canonical[T],
    sizes: Mapping[str, int],
    key: jax.Array,
    *,
    pooled: bool = False,
) -> dict[str, list[T]]:
    """Splits in which no canonical form occurs twice; only train depends on `key`.

    Where some examples are much likelier than others, the split that is drawn first takes them all.
    With `pooled`, test and dev are picked at random from one pool of the size of all splits, so
    that every split has its share of them.
    """
    shared, seen = shared_generator(), set[Any]()
    if pooled:
        pool = distinct(draw, canonical, sum(sizes.values()), shared, set())
        picked = [pool[i] for i in shared.permutation(len(pool)).tolist()]
        test, dev = picked[: sizes["test"]], picked[sizes["test"] :][: sizes["dev"]]
        seen = {*canonical(test + dev)}
    else:
        test = distinct(draw, canonical, sizes["test"], shared, seen)
        dev = distinct(draw, canonical, sizes["dev"], shared, seen)
    train = distinct(draw, canonical, sizes["train"], generator(key), seen)
    return {"train": train, "dev": dev, "test": test}


def require_enough(sizes: Mapping[str, int], existing: int, what: str) -> None:
    """Raise UserError when splits need more distinct examples than exist."""
    if (total := sum(sizes.values())) > existing:
        raise UserError(
            f"{total:,} distinct {what} are asked for ({' + '.join(sizes)}) "
            f"but only {existing:,} exist"
        )


def quoted(text: str) -> str:
    """A string as an error shows it: in quotes, cut after 80 characters."""
    return repr(text if len(text) <= 80 else f"{text[:79]}…")
