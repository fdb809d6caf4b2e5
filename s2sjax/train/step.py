"""One run as pure functions: state, update, epoch, evaluation. `replicas` lifts them over seeds."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, UInt

from s2sjax.config import Optimiser, Training
from s2sjax.data.batches import epoch_order
from s2sjax.data.rows import Batch, Examples
from s2sjax.data.vocab import NO_SYMBOL
from s2sjax.model.decode import Decoded, Greedy, Policy, argmax, decode
from s2sjax.model.dropout import DropoutNoise, Noise, Rates, fold_in
from s2sjax.model.seq2seq import DECODING, Seq2Seq, padding_mask
from s2sjax.train.losses import token_losses, weighted_mean
from s2sjax.train.metrics import Count, is_exact_match, scores
from s2sjax.train.optimiser import step_size, transformation

Params = Any

_DRAWS = 2**31 - 1  # folded into the key; no epoch has this number
_NOISE = 2**31 - 2  # a stream of an update's draws


def wrap(key: UInt[Array, " 2"]) -> Key[Array, ""]:
    """Key data as a typed key; the generator is threefry2x32, whatever JAX's settings say."""
    return jax.random.wrap_key_data(key, impl="threefry2x32")


class Best(flax.struct.PyTreeNode):
    """The parameters with the best dev loss so far; replaced no more once a replica has stopped.

    Attributes:
        params: the parameters then.
        loss: their dev loss, in nats per scored symbol.
        stale: evaluations since, int32.
    """

    params: Params
    loss: Any
    stale: Any


class TrainState(flax.struct.PyTreeNode):
    """All that changes while training; saved and restored as it is.

    Attributes:
        params: the model's parameters.
        opt_state: the optimiser's moments.
        learning_rate: the replica's own, so that runs of one program may differ in it.
        rates: chances to drop, for the same reason; None where nothing is dropped.
        key: what decides the order of batches and every draw, the data of a key: uint32 ``[2]``; it
            never changes.
        update: updates done, int32.
        epoch: epochs done, int32.
        best: what early stopping keeps, a `Best`, or None without it.
    """

    params: Params
    opt_state: Any
    learning_rate: Any
    rates: Rates
    key: Any
    update: Any
    epoch: Any
    best: Any

    @property
    def scored(self) -> Params:
        """The parameters that are scored: with early stopping the best, once any were looked at."""
        if self.best is None or np.isinf(self.best.loss).all():
            return self.params
        return self.best.params


@dataclass(frozen=True)
class Trainer:
    """The static half of a run: equal trainers compile to the same programs.

    Attributes:
        model: the encoder-decoder; chances to drop are the state's, not those of its settings.
        optimiser: settings of Adam; the learning rate is the state's, not this one.
        training: budget, forcing, smoothing, early stopping.
        updates: of the whole training.
        eos_id: the symbol that ends a target, or `vocab.NO_SYMBOL`.
        unk_id: the symbol of what is unknown, never right; or `vocab.NO_SYMBOL`.
        pad_id: the symbol that fills targets, never scored; or None.
    """

    model: Seq2Seq
    optimiser: Optimiser
    training: Training
    updates: int
    eos_id: int
    unk_id: int
    pad_id: int | None

    @property
    def tx(self) -> optax.GradientTransformation:
        """Gradients to updates of step size one."""
        return transformation(self.optimiser)

    def init(
        self, key: UInt[Array, " 2"], learning_rate: Float[Array, ""], rates: Rates
    ) -> TrainState:
        """Initial parameters and an empty optimiser: a pure function of the key's data."""
        init_key, order_key = jax.random.split(wrap(key))
        ids = jnp.zeros((1, 2), jnp.int32)
        params = self.model.init(init_key, ids, ids)["params"]
        stops = self.training.patience is not None
        best = Best(params, jnp.float32(jnp.inf), jnp.int32(0)) if stops else None
        start = jnp.int32(0)
        order = jax.random.key_data(order_key)
        return TrainState(
            params, self.tx.init(params), learning_rate, rates, order, start, start, best
        )

    def apply(self, params: Params, *arguments: Any, method: Any = None) -> Any:
        """Call the model, or one of its methods, with these parameters."""
        return self.model.apply({"params": params}, *arguments, method=method)

    def loss(
        self,
        params: Params,
        batch: Batch,
        key: Key[Array, ""],
        forcing: Float[Array, ""] | float,
        rates: Rates,
    ) -> Float[Array, ""]:
        """Cross-entropy in nats per scored symbol of a batch, smoothed if the training is.

        Args:
            params: the model's parameters.
            batch: examples and their weights.
            key: decides what is dropped, and what is fed where gold symbols are not.
            forcing: chance that a gold symbol is fed.
            rates: chances to drop.
        """
        source, target = batch.examples
        noisy = any(rate is not None for rate in rates)
        noise = DropoutNoise(jax.random.fold_in(key, _NOISE), rates) if noisy else None
        if self.training.always_forced:
            logits = self.apply(params, source, target[:, :-1], noise)
        else:
            logits = self.scheduled_sampling_logits(
                params, source, target[:, :-1], key, forcing, noise
            )
        losses = token_losses(logits, target[:, 1:], self.training.label_smoothing)
        return weighted_mean(losses, self.scored(target, batch.weight))

    def scheduled_sampling_logits(
        self,
        params: Params,
        source: Int[Array, "batch source_time"],
        target_in: Int[Array, "batch target_time"],
        key: Key[Array, ""],
        forcing: Float[Array, ""] | float,
        noise: Noise = None,
    ) -> Float[Array, "batch target_time vocab"]:
        """Logits where each fed symbol is gold with chance `forcing`, else the model's own draw.

        Bengio et al. (2015), "Scheduled sampling": drawn for every token; no gradient goes through
        a draw. The first symbol fed is always the target's.
        """
        encoding = self.apply(params, source, noise, method=Seq2Seq.encode)
        theirs = fold_in(noise, DECODING)

        def step(before, now):
            carry, own = before
            gold, key, time = now
            key_forced, key_own = jax.random.split(key)
            forced = jax.random.bernoulli(key_forced, forcing, own.shape) | (own < 0)
            token = jnp.where(forced, gold, own)
            carry, logits = self.apply(
                params, carry, token, encoding, fold_in(theirs, time), method=Seq2Seq.step
            )
            own = jax.random.categorical(key_own, jax.lax.stop_gradient(logits))
            return (carry, own.astype(jnp.int32)), logits

        time_major = target_in.T
        start = (encoding.initial_state, jnp.full_like(time_major[0], NO_SYMBOL))
        keys = jax.random.split(key, time_major.shape[0])
        _, logits = jax.lax.scan(step, start, (time_major, keys, jnp.arange(keys.size)))
        return jnp.swapaxes(logits, 0, 1)

    def forcing(self, update: Int[Array, ""]) -> Float[Array, ""] | float:
        """Chance that a gold symbol is fed at an update: linear from the first to the last."""
        first, last = self.training.teacher_forcing, self.training.teacher_forcing_end
        if last is None:
            return first
        return first + (last - first) * update / max(self.updates - 1, 1)

    def scored(
        self, target: Int[Array, "batch target_time"], weight: Float[Array, " batch"]
    ) -> Float[Array, "batch predicted_time"]:
        """Weight of every predicted symbol: 1, or 0 at padding and in filling rows."""
        mask = padding_mask(target[:, 1:], self.pad_id)
        weights = jnp.broadcast_to(weight[:, None], target[:, 1:].shape)
        return weights if mask is None else weights * mask

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Float[Array, ""]]:
        """One update: the new state, and the loss before it."""
        draws = jax.random.fold_in(jax.random.fold_in(wrap(state.key), _DRAWS), state.update)
        loss, gradient = jax.value_and_grad(self.loss)(
            state.params, batch, draws, self.forcing(state.update), state.rates
        )
        updates, opt_state = self.tx.update(gradient, state.opt_state, state.params)
        rate = state.learning_rate * step_size(self.optimiser, state.update, self.updates)
        params = jax.tree.map(lambda p, u: p + -rate * u, state.params, updates)
        state = state.replace(params=params, opt_state=opt_state, update=state.update + 1)
        return state, loss

    def order(self, state: TrainState, n: int) -> Int[Array, " n"]:
        """The order of all rows in the epoch that the state is in."""
        return epoch_order(wrap(state.key), state.epoch, n)

    def train_chunk(
        self,
        state: TrainState,
        losses: Float[Array, " updates"],
        examples: Examples,
        indices: Int[Array, "k rows"],
        weights: Float[Array, "k rows"],
        first: Int[Array, ""],
        count: Int[Array, ""],
        *,
        widths: tuple[int, int],
    ) -> tuple[TrainState, Float[Array, " updates"], Bool[Array, ""]]:
        """Some updates of an epoch: one loop over batches of one bucket.

        Args:
            state: before them.
            losses: of every update of this epoch so far, where they are put.
            examples: rows that `indices` point into.
            indices: rows of every batch of the bucket.
            weights: of these rows.
            first: number of the first batch.
            count: batches.
            widths: source and target width of the bucket.

        Returns:
            State and losses after them, and whether all parameters are finite.
        """

        def update(i, carry):
            state, losses = carry
            batch = take(examples, indices[first + i], weights[first + i], widths)
            at = state.update - state.epoch * losses.shape[0]
            state, loss = self.train_step(state, batch)
            return state, losses.at[at].set(loss)

        state, losses = jax.lax.fori_loop(0, count, update, (state, losses))
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]
        return state, losses, jnp.stack(finite).all()

    def close_epoch(self, state: TrainState, dev_loss: Float[Array, ""]) -> TrainState:
        """Count the epoch; a dev loss (NaN: not evaluated) decides on early stopping."""
        if state.best is not None:
            state = state.replace(best=self.early_stopping(state, dev_loss))
        return state.replace(epoch=state.epoch + 1)

    def early_stopping(self, state: TrainState, dev_loss: Float[Array, ""]) -> Best:
        """Early stopping: keep the parameters if they are the best, unless this run has stopped.

        Stopped runs ride on until all have stopped, so that what a run gets does not depend on the
        stack it is in.
        """
        best = state.best
        evaluated = ~jnp.isnan(dev_loss)
        running = evaluated & (best.stale < self.training.patience)
        better = running & (dev_loss < best.loss)
        keep = partial(jax.tree.map, lambda new, old: jnp.where(better, new, old))
        stale = jnp.where(better, 0, best.stale + running)
        return Best(keep(state.params, best.params), keep(dev_loss, best.loss), stale)

    def decode(
        self,
        params: Params,
        examples: Examples,
        policy: Policy,
        keys: Key[Array, " batch"],
        max_decode_len: int,
    ) -> Decoded:
        """Free-running answers to a batch: each starts from its target's first symbol alone."""
        encoding = self.apply(params, examples.source, method=Seq2Seq.encode)

        def step(carry, token):
            return self.apply(params, carry, token, encoding, method=Seq2Seq.step)

        return decode(
            step,
            encoding.initial_state,
            examples.target[:, 0],
            policy=policy,
            eos_id=self.eos_id,
            max_decode_len=max_decode_len,
            keys=keys,
        )

    def evaluate(
        self,
        params: Params,
        examples: Examples,
        weights: Float[Array, "k rows"],
        *,
        max_decode_len: int,
    ) -> tuple[dict[str, Count], Int[Array, "k rows time"], Bool[Array, "k rows"]]:
        """Every score of `metrics` on some batches.

        Args:
            params: the model's parameters.
            examples: batches, ``[k, rows, time]``.
            weights: 0 where a row only fills a batch.
            max_decode_len: most symbols of a free-running answer.

        Returns:
            Counts of each batch by metric, greedy free-running answers, and which are right.
        """

        def score(_, batch):
            source, target = batch.examples
            scored = self.scored(target, batch.weight)
            logits = self.apply(params, source, target[:, :-1])
            losses = token_losses(logits, target[:, 1:])
            keys = jax.random.split(jax.random.key(0), source.shape[0])  # greedy draws nothing
            free = self.decode(params, batch.examples, Greedy(), keys, max_decode_len).tokens
            shown = free[:, : target.shape[1] - 1]
            ids = (self.eos_id, self.unk_id)
            counts = {"loss": Count((losses * scored).sum(), scored.sum())}
            for name, predicted in (("teacher_forced", argmax(logits)), ("free_running", shown)):
                for metric, value in scores(predicted, target[:, 1:], scored, *ids).items():
                    counts[f"{name}/{metric}"] = value
            right = is_exact_match(shown, target[:, 1:], scored, self.unk_id)
            return None, (counts, free, right)

        _, (counts, free, right) = jax.lax.scan(score, None, Batch(examples, weights))
        return counts, free, right


def take(
    examples: Examples,
    indices: Int[Array, " rows"],
    weight: Float[Array, " rows"],
    widths: tuple[int, int],
) -> Batch:
    """Gather a batch of some widths."""
    rows = zip(examples, widths, strict=True)
    return Batch(Examples(*(side[indices, :width] for side, width in rows)), weight)
