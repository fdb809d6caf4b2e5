"""Which input an output depends on: the gradient probe, through training.

Sutskever, Vinyals & Le (2014) explain the gain of a reversed source by time lag: symbols that
belong together stand closer to each other, and gradients reach from one to the other. Here it can
be looked at: the norm of d(logit of the right symbol at output step t) / d(input at source step s).

The input is the one-hot vector x of a source symbol, which enters the encoder as ``z = x w + b``
where ``w`` has a row a symbol (the embedding times the input weights, where there is an embedding).
The derivative is with respect to all entries of x, at the x that was read: ``w dlogit/dz``, and its
norm the Euclidean one. The right symbols before step t are given (teacher forcing).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from s2sjax.data import Examples, Formatter
from s2sjax.fit import make_programs
from s2sjax.group import Group
from s2sjax.linear import matmul
from s2sjax.models import Seq2Seq
from s2sjax.replicas import lift, spread, stack
from s2sjax.report import NONE, Table
from s2sjax.taskconfig import Addition
from s2sjax.tasks import Pairs
from s2sjax.train import Params, Trainer
from s2sjax.vocab import padding_mask

QUESTIONS = 200
"""Most questions of a mean."""

PLACES = "uthk"
"""Units, tens, hundreds, thousands."""


def input_weights(model: Seq2Seq) -> Float[Array, "vocab gates"]:
    """What each symbol's entry of a one-hot input adds to the encoder's projected input."""
    symbols = jnp.arange(model.vocab_size, dtype=jnp.int32)
    return model.encoder.project(symbols) - model.encoder.bias[None]


def sensitivity(
    trainer: Trainer, params: Params, examples: Examples
) -> Float[Array, "predicted source"]:
    """The norm of d(logit of the right symbol) / d(one-hot input), the mean over examples."""
    source, target = examples
    weights = trainer.apply(params, method=input_weights)
    mask = padding_mask(source, trainer.model.pad_id)

    def right_logits(z: Float[Array, "n source gates"]) -> Float[Array, "n predicted"]:
        encoding = trainer.apply(params, z, mask, method=Seq2Seq.read)
        logits = trainer.apply(params, encoding, target[:, :-1], method=Seq2Seq.write)
        return jnp.take_along_axis(logits, target[:, 1:, None], axis=2)[..., 0]

    z = trainer.apply(params, source, method=lambda model, ids: model.encoder.project(ids))
    logits, pull_back = jax.vjp(right_logits, z)

    def norms(t: Int[Array, ""]) -> Float[Array, " source"]:
        # An example's logit depends on its own input alone, so one pass serves them all.
        (dz,) = pull_back(jnp.zeros_like(logits).at[:, t].set(1))
        dx = matmul(dz, weights.T, "float32")
        return jnp.sqrt((dx**2).sum(axis=-1)).mean(axis=0)

    return jax.lax.map(norms, jnp.arange(logits.shape[1]))


# --- questions whose steps line up, and the names of their steps --------------------------------


def alike(pairs: Pairs, width: int, most: int = QUESTIONS) -> Pairs:
    """The first full-length questions, all with answers of one length and sign.

    Args:
        pairs: to choose from.
        width: length of a full-length question.
        most: questions.
    """
    full = [pair for pair in pairs if len(pair[0]) == width]
    shapes = Counter((len(gold), gold[:1] == "-") for _, gold in full)
    if not shapes:
        return []
    shape = max(shapes, key=lambda s: (shapes[s], s))
    return [(q, gold) for q, gold in full if (len(gold), gold[:1] == "-") == shape][:most]


def _labelled(text: str, lay_out: Callable[[str], str]) -> list[str]:
    """Every digit of a text as its place in its number, where the layout puts it.

    The layout moves characters without looking at which digit they are, so that digits can carry
    their index, a decimal at a time.
    """
    numbers = [len(part) for part in text.replace("-", "+").split("+")]
    places = [str(k) for n in numbers for k in reversed(range(n))]
    digits = [i for i, character in enumerate(text) if character.isdigit()]
    decimals = []
    for power in range(len(str(len(text)))):
        written = list(text)
        for index, i in enumerate(digits):
            written[i] = str(index // 10**power % 10)
        decimals.append(lay_out("".join(written)))
    labels = []
    for characters in zip(*decimals, strict=True):
        if not characters[0].isdigit():
            labels.append(characters[0])
            continue
        index = sum(int(decimal) * 10**power for power, decimal in enumerate(characters))
        place = int(places[index])
        labels.append(PLACES[place] if place < len(PLACES) else f"10^{place}")
    return labels


def source_steps(form: Formatter, question: str) -> list[str]:
    """What stands at each source step of questions as long as this one, places by letter."""
    end = ["⏎"] * form.text.source_eos
    return _labelled(question, form.source) + end


def target_steps(form: Formatter, gold: str) -> list[str]:
    """What stands at each predicted step of answers as long as this one, places by letter."""
    end = ["⏎"] * form.text.target_eos
    return (_labelled(gold, form.target) + end)[form.text.start == "first_target" :]


# --- through training -------------------------------------------------------------------------


class Look(NamedTuple):
    """What an arm's outputs depend on, at several epochs of a run.

    Attributes:
        norms: `sensitivity` by epoch.
        outputs: what is predicted, step by step.
        inputs: what is read, step by step, in the arm's order.
        questions: of each mean.
        seed: of the run.
        losses: its `epoch_loss` by epoch.
    """

    norms: dict[int, Float[np.ndarray, "predicted source"]]
    outputs: list[str]
    inputs: list[str]
    questions: int
    seed: int
    losses: dict[int, float]


def snapshots(last: int, most: int = 6) -> list[int]:
    """Epochs to look at: before training, after the last epoch, closer together at the start."""
    spaced = np.geomspace(1, last, most - 1) if last > 1 else np.ones(1)
    return sorted({0, *(round(float(epoch)) for epoch in spaced)})


def look(group: Group, at: Sequence[int], told: Callable[[int], None]) -> dict[str, Look]:
    """Train a group from scratch, and look at some epochs.

    A run is a pure function of its config and seed: these are the runs whose scores are known.

    Args:
        group: arms that `can_look`, with one seed.
        at: epochs to look at, ascending; 0 is before the first.
        told: called after every epoch with its number.
    """
    pairs = {arm: _questions(group, arm) for arm in group.arms}
    n = min(map(len, pairs.values()))  # replicas have equal shapes
    examples = [group.formatters[arm].examples(pairs[arm][:n]) for arm, _ in group.replicas]
    probed = spread(stack(examples), group.mesh)
    probe = lift(partial(sensitivity, group.trainer), group.mesh)
    programs = make_programs(group.trainer, group.mesh)
    state, train = group.init(programs), group.examples("train")
    norms: dict[int, np.ndarray] = {}
    losses: dict[int, np.ndarray] = {}
    for epoch in range(at[-1] + 1):
        if epoch:
            state, of_updates = programs.train_epoch(state, train)
            losses[epoch] = np.asarray(of_updates).mean(axis=1)
            told(epoch)
        if epoch in at:
            norms[epoch] = np.asarray(probe(state.params, probed))
    found = {}
    for replica, (arm, seed) in enumerate(group.replicas):
        form, (question, gold) = group.formatters[arm], pairs[arm][0]
        outputs, inputs = target_steps(form, gold), source_steps(form, question)
        found[arm] = Look(
            {e: m[replica, : len(outputs), : len(inputs)] for e, m in norms.items()},
            outputs,
            inputs,
            n,
            seed,
            {e: float(loss[replica]) for e, loss in losses.items()},
        )
    return found


def _questions(group: Group, arm: str) -> Pairs:
    return alike(group.pairs(arm)[0]["dev"], group.formatters[arm].task.source_width)


def can_look(group: Group, arm: str) -> bool:
    """Whether an arm adds or subtracts, and has full-length dev questions."""
    return isinstance(group.arms[arm].task, Addition) and bool(_questions(group, arm))


def deviation(look: Look, recorded: Mapping[int, float]) -> float:
    """The largest relative difference of the losses from those recorded when the run was made."""
    shared = look.losses.keys() & recorded.keys()
    if not shared:
        raise ValueError(f"No epoch in common: {[*look.losses]} and {[*recorded]}.")
    return max(abs(look.losses[e] - recorded[e]) / max(abs(recorded[e]), 1e-6) for e in shared)


def lag_table(looks: Mapping[str, Look]) -> Table:
    """For every digit of the answer: how far its digits of the question are, and the norm there."""
    epochs = sorted(set().union(*(look.norms for look in looks.values())))
    rows = []
    for arm, look in looks.items():
        for t, place in enumerate(look.outputs):
            steps = [s for s, other in enumerate(look.inputs) if other == place]
            if not steps or not place[0].isalnum():
                continue
            lags = sorted(len(look.inputs) - s + t for s in steps)
            norms = [
                f"{look.norms[e][t, steps].mean():.3g}" if e in look.norms else NONE for e in epochs
            ]
            rows.append((arm, place, ", ".join(map(str, lags)), *norms))
    return Table(
        title="Gradient at the digits of the same place",
        headers=("arm", "place", "lags", *(f"epoch {epoch}" for epoch in epochs)),
        rows=tuple(rows),
        note=(
            "Place of an answer's digit: u units, t tens, h hundreds, k thousands. Lags: steps "
            "between reading each of the question's digits of that place and predicting it. "
            "Then the mean norm at these digits. A place that no operand has is left out."
        ),
    )
