"""What the encoder knows: digits and carries that linear probes read from its last state.

Has a reader of ``a+b`` only *remembered* the digits when the decoder starts, or already *added*
them? A run is trained again. From the state that the decoder receives, and from each state that
it predicts a digit from (the right symbols before it given), a linear classifier (Alain & Bengio,
2017) reads every digit of the operands and of the sum, and every carry. One half of the run's test
questions of full length fits it, the other half scores it.

The classifier is linear discriminant analysis by penalised regression on one-hot labels (Hastie,
Tibshirani & Buja, 1994). The regression alone masks classes that lie in line, as digits do whose
size is what a state holds (Hastie et al., *The Elements of Statistical Learning*, section 4.2).

Floors: the most frequent class; the same probe fitted to shuffled labels; and the same probe of the
*operands' digits themselves*, one-hot, which is perfect memory without adding. A carry is a
threshold of a sum of digits, so that memory alone reads it well; a digit of the sum it does not.

The causal check: the encoder's last state is moved, between two questions, so that the probe of a
digit reads what it reads in the other one. Does the answer's digit follow? The move is the smallest
by the states' covariance: along the probe's weights alone a state leaves all that the decoder has
seen (Haufe et al., 2014). The floor is a random span of the same dimension. What was predicted, and
how it is shown: `knowledge`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from s2sjax.analysis.gradients import PLACES, again, named_steps
from s2sjax.data.rows import Examples, Formatter
from s2sjax.data.tasks import Addition, Pairs
from s2sjax.model.decode import Greedy, decode
from s2sjax.model.seq2seq import State
from s2sjax.report.results import Record
from s2sjax.study.group import Group
from s2sjax.train.replicas import fetch, lift, stack
from s2sjax.train.step import Params, Trainer

QUESTIONS = 2_000  # probes are fitted and scored on at most so many
PENALTY = 0.01  # of the regression, on features of unit variance, times the number of questions
KINDS = {"first": "operands", "second": "operands", "sum": "sums", "carry": "carries"}
"""By kind of label, the mean over labels that it is a part of."""
MEANS = tuple(dict.fromkeys(KINDS.values()))
WRITING, SHUFFLED, SWAPPED, RANDOM = ", writing", ", shuffled", ", swapped", ", random span"
"""After an arm's name: of the states that predict a label's place; shuffled labels; the swaps."""
FREQUENT, KNOWN = ", most frequent", ", operands known"
"""After an arm's name: what is read without its states."""


def facts(pairs: Pairs, digits: int) -> dict[str, Int[np.ndarray, " n"]]:
    """Every digit of two operands and of their sum, and every carry out of a place, by name.

    A place is u for units, t for tens and so on; the carry out of the highest place is the sum's
    first digit, where it has one more than the operands can have.
    """
    operands = np.array([[int(term) for term in question.split("+")] for question, _ in pairs])
    found = {}
    for kind in KINDS:
        for place in reversed(range(digits)):
            power = 10**place
            first, second = operands.T // power % 10
            carry = (operands % (10 * power)).sum(axis=1) >= 10 * power
            total = operands.sum(axis=1) // power % 10
            of = {"first": first, "second": second, "sum": total, "carry": carry.astype(int)}
            found[f"{kind} {PLACES[place]}"] = of[kind]
    return found


class Probe(NamedTuple):
    """A linear classifier: the class with the highest ``x directions + bias``."""

    classes: Int[np.ndarray, " k"]
    directions: Float[np.ndarray, "features k"]
    bias: Float[np.ndarray, " k"]

    def read(self, x: Float[np.ndarray, "n features"]) -> Int[np.ndarray, " n"]:
        """The class of every row."""
        return self.classes[np.argmax(x @ self.directions + self.bias, axis=1)]


def ridge(
    x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "n k"], penalty: float = PENALTY
) -> Float[np.ndarray, "features k"]:
    """The w of least ``|x w - y|^2 / n + penalty |w|^2``."""
    return np.linalg.solve(covariance(x, penalty), x.T @ y / len(x))


def covariance(
    x: Float[np.ndarray, "n features"], penalty: float = PENALTY
) -> Float[np.ndarray, "features features"]:
    """That of features whose means are 0, with the penalty on its diagonal."""
    return x.T @ x / len(x) + penalty * np.eye(x.shape[1])


def fit(x: Float[np.ndarray, "n features"], labels: Sequence[Int[np.ndarray, " n"]]) -> list[Probe]:
    """Probes of several labels: features have mean 0, and variance 1 where they vary."""
    classes = [np.unique(label) for label in labels]
    one_hots = [np.equal.outer(y, c).astype(float) for y, c in zip(labels, classes, strict=True)]
    shares = [one_hot.mean(axis=0) for one_hot in one_hots]
    weights = ridge(x, np.concatenate(one_hots, axis=1) - np.concatenate(shares))
    found, ends = [], np.cumsum([len(c) for c in classes])[:-1]
    for c, y, share, w in zip(
        classes, one_hots, shares, np.split(weights, ends, axis=1), strict=True
    ):
        fitted = x @ w
        means = y.T @ fitted / y.sum(axis=0)[:, None]
        off = fitted - y @ means
        within = off.T @ off / len(x) + 1e-6 * np.eye(len(c))  # the columns of w add up to 0
        to_mean = np.linalg.solve(within, means.T)
        bias = np.log(share) - (means * to_mean.T).sum(axis=1) / 2
        found.append(Probe(c, w @ to_mean, bias))
    return found


def swapped(
    x: Float[np.ndarray, "n features"],
    other: Float[np.ndarray, "n features"],
    directions: Float[np.ndarray, "features k"],
) -> Float[np.ndarray, "n features"]:
    """`x` with the part of `other` in the span of some directions."""
    u, sizes, _ = np.linalg.svd(directions, full_matrices=False)
    basis = u[:, sizes > 1e-6 * sizes[0]]
    return x + (other - x) @ basis @ basis.T


def flat(state: State) -> Float[Array, "batch features"]:
    """The carries of all layers side by side; of an LSTM c, then h."""
    return jnp.concatenate(jax.tree.leaves(state.carries), axis=-1)


def states(
    trainer: Trainer, params: Params, examples: Examples, at: Int[Array, "n columns"]
) -> Float[Array, "n columns features"]:
    """The states that the decoder predicts step `at` from, counted from 1, the right symbols given.

    0 is the one that it starts from: the encoder's last, as the settings pass it on.
    """
    encoding = trainer.encode(params, examples.source)

    def step(state, token):
        state, _ = trainer.step(params, state, token, encoding)
        return state, flat(state)

    start = encoding.initial_state
    _, after = jax.lax.scan(step, start, examples.target[:, :-1].T)
    every = jnp.concatenate([flat(start)[None], after])
    return jnp.take_along_axis(jnp.swapaxes(every, 0, 1), at[:, :, None], axis=1)


def written(
    trainer: Trainer, params: Params, examples: Examples, start: Float[Array, "n features"]
) -> Int[Array, "n time"]:
    """Greedy answers of a decoder that starts from other carries, `flat`, than the encoder's."""
    encoding = trainer.encode(params, examples.source)
    leaves, tree = jax.tree.flatten(encoding.initial_state.carries)
    carries = jax.tree.unflatten(tree, jnp.split(start, len(leaves), axis=-1))
    return decode(
        lambda state, token: trainer.step(params, state, token, encoding),
        encoding.initial_state._replace(carries=carries),
        examples.target[:, 0],
        policy=Greedy(),
        eos_id=trainer.eos_id,
        max_decode_len=examples.target.shape[1] - 1,
        keys=jax.random.split(jax.random.key(0), len(start)),  # greedy draws nothing
    ).tokens


class Asked(NamedTuple):
    """The questions that a replica is probed with."""

    formatter: Formatter
    pairs: Pairs
    labels: dict[str, Int[np.ndarray, " n"]]  # `facts`
    columns: list[str]  # places in the order of writing
    at: Int[np.ndarray, "n columns"]  # 0, then the steps that predict them; of one given, 0

    def digits_of(self, ids: Int[np.ndarray, "n time"]) -> Int[np.ndarray, "places n"]:
        """Of answers to the last n questions, the digit at each place from the units on, or -1."""
        places = range(len(self.columns))
        found = np.full((len(places), len(ids)), -1)
        for i, (own, (_, gold)) in enumerate(zip(ids, self.pairs[-len(ids) :], strict=True)):
            text = self.formatter.read(own, self.formatter.given(gold))[::-1]
            for place in places:
                if text[place : place + 1].isdigit():
                    found[place, i] = int(text[place])
        return found


def ask(formatter: Formatter, pairs: Pairs, digits: int) -> Asked:
    """Questions whose operands have as many digits."""
    steps = [["", *named_steps(formatter, gold, predicted=True)] for _, gold in pairs]
    places = sorted(PLACES[:digits], key=lambda place: _step(steps[0], place))
    at = [[0, *(_step(own, place) for place in places)] for own in steps]
    return Asked(formatter, pairs, facts(pairs, digits), places, np.array(at, np.int32))


def _step(steps: Sequence[str], place: str) -> int:
    return steps.index(place) if place in steps else 0


def mean_of(label: str) -> str | None:
    """The mean that a name of `facts` is a part of; None for another metric."""
    return KINDS.get(label.split()[0])


def _questions(group: Group, arm: str) -> list[Pairs]:
    width = group.arms[arm].task.source_width
    return [[p for p in of["test"] if len(p[0]) == width] for of in group.pairs(arm)]


def can_probe(group: Group, arm: str) -> bool:
    """Whether an arm adds two numbers, and its decoder starts from the encoder's last state."""
    task, model = group.arms[arm].task, group.arms[arm].model
    sums = isinstance(task, Addition) and (task.operator, task.terms) == ("+", 2)
    starts = model.decoder == "state" and model.decoder_init != "zero"
    short = sums and task.target_width <= len(PLACES)
    return starts and short and len(_questions(group, arm)[0]) > 1


def probe(group: Group, at: Sequence[int], on_epoch: Callable[[int], None]) -> list[Record]:
    """Train a group again; probe the states of its replicas after some epochs, swap at the last.

    `can_probe` is true of each arm; `at` are ascending epochs, 0 is before training; `on_epoch` is
    called after each epoch with its number. A replica that has diverged is left out.

    Returns shares as records of results. Their metric is a name of `facts`, or the mean over
    a value of `KINDS`. Their arm is an arm, for the encoder's last state; ``ARM, before PLACE`` for
    the states that predict a place; or has one of the endings of this file. That of a swap is the
    share of digits that follow, of those that should change and that the model has right in both
    questions. ``epoch_loss`` is the training's.
    """
    mesh, trainer, model = group.programs.mesh, group.programs.trainer, group.run.model
    pairs = [own for arm in group.arms for own in _questions(group, arm)]
    half = min(QUESTIONS, *map(len, pairs)) // 2
    asked, examples = [], []
    for own, (arm, _) in zip(pairs, group.replicas, strict=True):
        formatter, task = group.formatter(arm), group.arms[arm].task
        assert isinstance(task, Addition)
        asked.append(ask(formatter, own[: 2 * half], task.digits))
        examples.append(formatter.examples(own[: 2 * half]))
    inputs = stack(examples, mesh), stack([own.at for own in asked], mesh)
    program = lift(partial(states, trainer), mesh)
    records: list[list[Record]] = [[] for _ in asked]
    floors, finite = [_without_states(own) for own in asked], []

    def record(i: int, suffix: str, shares: Mapping[str, float], split: str = "test") -> None:
        arm, seed = group.replicas[i]
        kinds = {mean: [s for k, s in shares.items() if mean_of(k) == mean] for mean in MEANS}
        means = {mean: float(np.mean(of)) for mean, of in kinds.items() if of}
        for metric, share in {**shares, **means}.items():
            place: Any = {"arm": arm + suffix, "seed": seed, "split": split, "epoch": epoch}
            records[i].append(Record(**place, metric=metric, value=float(share)))

    for epoch, (state, losses) in again(group, at[-1]):
        if epoch:
            for i, loss in enumerate(fetch(losses, len(asked))):
                record(i, "", {"epoch_loss": float(loss.mean())}, "train")
            on_epoch(epoch)
        if epoch not in at:
            continue
        found = fetch(program(state.params, *inputs), len(asked)).astype(np.float64)
        finite = [i for i, x in enumerate(found) if np.isfinite(x).all()]
        found = np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
        for i in finite:
            for suffix, shares in {**_accuracies(found[i], asked[i]), **floors[i]}.items():
                record(i, suffix, shares)
        if epoch == at[-1] and model.attention is None and not model.peeky:
            scored = stack([Examples(*(side[half:] for side in rows)) for rows in examples], mesh)
            write = lift(partial(written, trainer), mesh)

            def answers(starts, write=write, params=state.params, scored=scored):
                starts = stack([x.astype(np.float32) for x in starts], mesh)
                return fetch(write(params, scored, starts), len(asked))

            for suffix, follow in _follow(found[:, :, 0], asked, half, answers).items():
                for i in finite:
                    own = {name: shares[i] for name, shares in follow.items()}
                    record(i, suffix, {name: s for name, s in own.items() if np.isfinite(s)})
    return [record for i in finite for record in records[i]]


def _scale(x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, " features"]:
    """The deviations of the first half, and 1 where nothing varies."""
    deviation = x[: len(x) // 2].std(axis=0)
    return np.where(deviation > 0, deviation, 1.0)


def _standard(x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n features"]:
    return (x - x[: len(x) // 2].mean(axis=0)) / _scale(x)


def _read(
    x: Float[np.ndarray, "n features"], asked: Asked, *, shuffled: bool = False
) -> dict[str, float]:
    """The share of labels that probes fitted on the first half read right in the second."""
    half, rng, x = len(x) // 2, np.random.default_rng(0), _standard(x)
    labels = asked.labels.values()
    given = [rng.permutation(label[:half]) if shuffled else label[:half] for label in labels]
    read = (one.read(x[half:]) for one in fit(x[:half], given))
    new = zip(asked.labels, read, labels, strict=True)
    return {name: float(np.mean(own == label[half:])) for name, own, label in new}


def _without_states(asked: Asked) -> dict[str, dict[str, float]]:
    """By ending of the arm's name, what is read without a state."""
    digits = [label for name, label in asked.labels.items() if mean_of(name) == "operands"]
    one_hot = np.concatenate([np.equal.outer(d, np.arange(10)) for d in digits], axis=1)
    known, nothing = one_hot.astype(float), np.zeros((len(one_hot), 1))
    return {KNOWN: _read(known, asked), FREQUENT: _read(nothing, asked)}


def _accuracies(
    x: Float[np.ndarray, "n columns features"], asked: Asked
) -> dict[str, dict[str, float]]:
    """By ending of the arm's name, what is read from states."""
    found = {"": _read(x[:, 0], asked), SHUFFLED: _read(x[:, 0], asked, shuffled=True)}
    for column, place in enumerate(asked.columns, start=1):
        found[f", before {place}"] = _read(x[:, column], asked)
    own = {name: found[f", before {name.split()[1]}"][name] for name in asked.labels}
    return {**found, WRITING: own}


def _follow(
    last: Float[np.ndarray, "replicas n features"],
    asked: Sequence[Asked],
    half: int,
    answers: Callable[[Sequence[np.ndarray]], Int[np.ndarray, "replicas n time"]],
) -> dict[str, dict[str, Float[np.ndarray, " replicas"]]]:
    """By ending and label, the share of swapped digits that follow; NaN where nothing counts."""
    scales, standard = [_scale(x) for x in last], [_standard(x) for x in last]
    roots = [np.linalg.cholesky(covariance(z[:half])) for z in standard]
    before = [
        own.digits_of(ids) for own, ids in zip(asked, answers([*last[:, half:]]), strict=True)
    ]
    rng, found = np.random.default_rng(0), {SWAPPED: {}, RANDOM: {}}
    for name in asked[0].labels:
        kind, place = name.split()
        column = PLACES.index(place)
        if kind == "carry":
            continue
        for suffix in found:
            starts = []
            for x, z, scale, root, own in zip(last, standard, scales, roots, asked, strict=True):
                probe = fit(z[:half], [own.labels[name][:half]])[0]
                directions, white = root.T @ probe.directions, np.linalg.solve(root, z[half:].T).T
                if suffix == RANDOM:
                    directions = rng.normal(size=directions.shape)[:, 1:]
                new = swapped(white, np.roll(white, -1, axis=0), directions)
                starts.append(x[half:] + (new - white) @ root.T * scale)
            shares = []
            for own, old, ids in zip(asked, before, answers(starts), strict=True):
                new, label = own.digits_of(ids)[column], own.labels[name][half:]
                gold = own.labels[f"sum {place}"][half:]
                wanted = (gold + np.roll(label, -1) - label) % 10
                right = old[column] == gold
                counts = right & np.roll(right, -1) & (wanted != gold)
                shares.append((new == wanted)[counts].mean() if counts.any() else np.nan)
            found[suffix][name] = np.array(shares)
    return found
