"""Which inputs an output depends on: gradients, computed during training.

Sutskever, Vinyals & Le (2014) explain the gain from reversing the source by shorter time lags:
gradients reach more easily from an output symbol to the input symbols it depends on. Here they are
measured: the norm of d(logit of the right symbol at output step t) / d(input at source step s).

The input is the one-hot vector x of a source symbol. The encoder reads ``z = x w + b``, where ``w``
has a row for each symbol (if there is an embedding, the embedding times the input weights). The
gradient is with respect to all entries of x, ``w dlogit/dz``; the norm is the Euclidean one. The
right symbols before step t are given (teacher forcing).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from s2sjax.data.rows import Examples, Formatter
from s2sjax.data.tasks import Addition, Pairs
from s2sjax.data.vocab import NO_SYMBOL
from s2sjax.model.linear import matmul
from s2sjax.model.seq2seq import Seq2Seq, padding_mask
from s2sjax.report.tables import NONE, Table
from s2sjax.study.group import Group
from s2sjax.train.loop import LoopState, Stack
from s2sjax.train.replicas import fetch, lift, stack
from s2sjax.train.step import Params, Trainer

QUESTIONS = 200  # gradients are means over at most so many questions
PLACES = ("u", "t", "h", "k", *(f"10^{k}" for k in range(4, 10)))
"""The place of a digit: units, tens, hundreds, thousands and so on."""
MEANING = (
    "Norm of d(logit of the right symbol at an output step) / d(one-hot vector of the symbol at an "
    "input step): all entries of the vector count, at the symbols that were read; the right "
    "symbols before the output step are given. The mean over full-length dev questions whose "
    "answers are equally long. Inputs are in the order in which the arm reads them."
)


def gradient_norms(
    trainer: Trainer, params: Params, examples: Examples
) -> Float[Array, "predicted source"]:
    """The norms of d(logit of the right symbol) / d(one-hot input), means over examples."""
    source, target = examples
    project = partial(trainer.apply, params, method=lambda model, ids: model.encoder.project(ids))
    symbols = jnp.arange(trainer.model.source_vocab_size, dtype=jnp.int32)
    bias = trainer.apply(params, method=lambda model: model.encoder.bias)
    weights = project(symbols) - bias[None]  # the w of this file's docstring, a row for each symbol
    mask = padding_mask(source, trainer.model.pad_id)

    def right_logits(z: Float[Array, "n source gates"]) -> Float[Array, "n predicted"]:
        encoding = trainer.apply(params, z, mask, method=Seq2Seq.encode_projected)
        target_in = target[:, :-1]
        logits, _ = trainer.apply(params, encoding, target_in, method=Seq2Seq.decode_forced)
        return jnp.take_along_axis(logits, target[:, 1:, None], axis=2)[..., 0]

    logits, pull_back = jax.vjp(right_logits, project(source))

    def norms(t: Int[Array, ""]) -> Float[Array, " source"]:
        # A logit depends on its own example only, so one backward pass serves all examples.
        (dz,) = pull_back(jnp.zeros_like(logits).at[:, t].set(1))
        dx = matmul(dz, weights.T, "float32")
        return jnp.sqrt((dx**2).sum(axis=-1)).mean(axis=0)

    return jax.lax.map(norms, jnp.arange(logits.shape[1]))


def of_one_shape(pairs: Iterable[tuple[str, str]], width: int, most: int = QUESTIONS) -> Pairs:
    """The first `most` questions of length `width` whose answers have one length and sign."""
    shapes: dict[tuple[int, bool], Pairs] = {}
    for question, gold in pairs:
        if len(question) == width:
            shapes.setdefault((len(gold), gold[:1] == "-"), []).append((question, gold))
    return max(shapes.items(), key=lambda s: (len(s[1]), s[0]), default=(0, []))[1][:most]


def named_steps(formatter: Formatter, text: str, *, predicted: bool) -> list[str]:
    """The symbols that are read of a question, or predicted of an answer.

    A digit is named by its place, such as u for units.
    """
    # A digit that says its own place, 0 for units, is moved by the layout like any other.
    text = re.sub("[0-9]+", lambda number: "9876543210"[-len(number[0]) :], text)
    vocabulary = formatter.target if predicted else formatter.source
    ids = formatter.target_ids(text)[1:] if predicted else formatter.source_ids(text)
    shown = {vocabulary.eos_id: "⏎", NO_SYMBOL: " "}
    symbols = (shown.get(i) or vocabulary.symbols[i] for i in ids)
    return [PLACES[int(symbol)] if symbol.isdigit() else symbol for symbol in symbols]


class Gradients(NamedTuple):
    """The gradients of an arm at several epochs of a run."""

    norms: dict[int, Float[np.ndarray, "predicted source"]]  # `gradient_norms` by epoch
    outputs: list[str]  # the symbol predicted at each step
    inputs: list[str]  # the symbol read at each step, in the arm's order
    questions: int  # how many each mean is over
    seed: int  # of the run
    losses: dict[int, float]  # its `epoch_loss` by epoch


def snapshots(last: int, most: int = 6) -> list[int]:
    """At most `most` epochs, from 0 (before training) to the last, closer together at the start."""
    spaced = np.geomspace(1, last, most - 1) if last > 1 else np.ones(1)
    return sorted({0, *(round(float(epoch)) for epoch in spaced)})


def probe(group: Group, at: Sequence[int], on_epoch: Callable[[int], None]) -> dict[str, Gradients]:
    """Train the arms of a group again, and compute their gradients after some epochs.

    The group has one seed, and `questions_of` each arm are some. `at` are ascending epochs; 0 is
    before training. `on_epoch` is called after each epoch with its number.
    """
    pairs = {arm: questions_of(group, arm) for arm in group.arms}
    n, mesh = min(map(len, pairs.values())), group.programs.mesh  # replicas have equal shapes
    examples = stack([group.formatter(arm).examples(pairs[arm][:n]) for arm in group.arms], mesh)
    lifted = lift(partial(gradient_norms, group.programs.trainer), mesh)
    norms, losses = {}, {}
    for epoch, (state, made) in again(group, at[-1]):
        if epoch:
            losses[epoch] = [float(own.mean()) for own in np.asarray(made)]
            on_epoch(epoch)
        if epoch in at:
            norms[epoch] = np.asarray(lifted(state.params, examples))
    found = {}
    for i, (arm, seed) in enumerate(group.replicas):
        formatter, (question, gold) = group.formatter(arm), pairs[arm][0]
        inputs = named_steps(formatter, question, predicted=False)
        outputs = named_steps(formatter, gold, predicted=True)
        own = {epoch: m[i, : len(outputs), : len(inputs)] for epoch, m in norms.items()}
        loss = {epoch: of[i] for epoch, of in losses.items()}
        found[arm] = Gradients(own, outputs, inputs, n, seed, loss)
    return found


def again(group: Group, last: int) -> Iterator[tuple[int, LoopState]]:
    """Train a group again: its state before training, as epoch 0, and after each epoch.

    Settings and seed decide a run, so the new run is equal to the first one. The next epoch uses
    the memory of a state again.
    """
    runs, mesh = group.stack(), group.programs.mesh
    loop_state, train = group.begin(runs), stack([split.examples for split in runs.train], mesh)
    yield 0, loop_state
    for epoch in range(1, last + 1):
        loop_state = _train_epoch(runs, loop_state, train)
        yield epoch, loop_state


def _train_epoch(runs: Stack, loop_state: LoopState, train: Examples) -> LoopState:
    """Train an epoch as `loop.fit` does, but without early stopping."""
    programs, schedule, (state, losses) = runs.programs, runs.schedule, loop_state
    order = fetch(programs("order", n=len(runs.train[0].lengths))(state), len(runs.labels))
    for number, first, count in schedule.blocks(int(state.epoch[0])):
        rows = [stack([*side], programs.mesh) for side in schedule.batches(order, number)]
        step = programs("train_chunk", widths=schedule.buckets[number][:2])
        state, losses, _ = step(state, losses, train, *rows, first, count)
    not_evaluated = stack([np.float32(np.nan)] * len(runs.labels), programs.mesh)
    return LoopState(programs("close_epoch")(state, not_evaluated), losses)


def questions_of(group: Group, arm: str) -> Pairs:
    """Dev questions of full length of an arm that adds or subtracts; none if answers are long."""
    task = group.arms[arm].task
    if not isinstance(task, Addition) or task.target_width > len(PLACES):
        return []
    return of_one_shape(group.pairs(arm)[0]["dev"], task.source_width)


def deviation(losses: Mapping[int, float], recorded: Mapping[int, float]) -> float:
    """The largest relative difference between the losses and those recorded in the first run."""
    shared = losses.keys() & recorded.keys()
    return max(abs(losses[e] - recorded[e]) / max(abs(recorded[e]), 1e-6) for e in shared)


def lag_table(probed: Mapping[str, Gradients]) -> Table:
    """For each digit of the answer, the gradients at the question's digits of the same place."""
    epochs = sorted(set().union(*(one.norms for one in probed.values())))
    rows = []
    for arm, (at, outputs, inputs, *_) in probed.items():
        for t, place in enumerate(outputs):
            steps = [s for s, other in enumerate(inputs) if other == place]
            if not steps or not place[0].isalnum():
                continue
            lags = sorted(len(inputs) - s + t for s in steps)
            norms = [f"{at[e][t, steps].mean():.3g}" if e in at else NONE for e in epochs]
            rows.append((arm, place, ", ".join(map(str, lags)), *norms))
    headers = ("arm", "place", "lags", *(f"epoch {epoch}" for epoch in epochs))
    note = (
        "Place of an answer's digit: u units, t tens, h hundreds, k thousands. Lags: steps between "
        "reading each of the question's digits of that place and predicting it. Then the mean norm "
        "at these digits. A place that no operand has is left out."
    )
    return Table("Gradient at the digits of the same place", headers, tuple(rows), note)
