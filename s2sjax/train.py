"""One run as pure functions: state, update, epoch, evaluation. `replicas` lifts them over seeds."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from s2sjax.config import Optimiser, Training
from s2sjax.data import Batch, Examples, epoch_order, in_batches, take
from s2sjax.decode import Decoded, Greedy, Policy, decode
from s2sjax.dropout import Drawn, Noise, Rates, fold
from s2sjax.losses import token_losses, weighted_mean
from s2sjax.metrics import Count, argmax, scores
from s2sjax.models import DECODING, Seq2Seq
from s2sjax.optimiser import step_size, transformation
from s2sjax.vocab import NO_SYMBOL, padding_mask

Params = Any

_DRAWS = 2**31 - 1  # a stream of the key that no epoch is
_NOISE = 2**31 - 2  # a stream of an update's draws


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
        key: what decides the order of batches and every draw, a typed key; it never changes.
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
    """

    model: Seq2Seq
    optimiser: Optimiser
    training: Training
    updates: int
    eos_id: int

    @property
    def tx(self) -> optax.GradientTransformation:
        """Gradients to updates of step size one."""
        return transformation(self.optimiser)

    def init(
        self, key: Key[Array, ""], learning_rate: Float[Array, ""], rates: Rates
    ) -> TrainState:
        """Initial parameters and an empty optimiser: a pure function of the key."""
        init_key, order_key = jax.random.split(key)
        ids = jnp.zeros((1, 2), jnp.int32)
        params = self.model.init(init_key, ids, ids)["params"]
        stops = self.training.patience is not None
        best = Best(params, jnp.float32(jnp.inf), jnp.int32(0)) if stops else None
        start = jnp.int32(0)
        return TrainState(
            params, self.tx.init(params), learning_rate, rates, order_key, start, start, best
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
        noise = Drawn(jax.random.fold_in(key, _NOISE), rates) if noisy else None
        if self.training.always_forced:
            logits = self.apply(params, source, target[:, :-1], noise)
        else:
            logits = self.partly_forced(params, source, target[:, :-1], key, forcing, noise)
        losses = token_losses(logits, target[:, 1:], self.training.label_smoothing)
        return weighted_mean(losses, self.scored(target, batch.weight))

    def partly_forced(
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
        theirs = fold(noise, DECODING)

        def step(before, now):
            carry, own = before
            gold, key, time = now
            key_forced, key_own = jax.random.split(key)
            forced = jax.random.bernoulli(key_forced, forcing, own.shape) | (own < 0)
            token = jnp.where(forced, gold, own)
            carry, logits = self.apply(
                params, carry, token, encoding, fold(theirs, time), method=Seq2Seq.step
            )
            own = jax.random.categorical(key_own, jax.lax.stop_gradient(logits))
            return (carry, own.astype(jnp.int32)), logits

        time_major = target_in.T
        start = (encoding.carry, jnp.full_like(time_major[0], NO_SYMBOL))
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
        mask = padding_mask(target[:, 1:], self.model.pad_id)
        weights = jnp.broadcast_to(weight[:, None], target[:, 1:].shape)
        return weights if mask is None else weights * mask

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Float[Array, ""]]:
        """One update: the new state, and the loss before it."""
        draws = jax.random.fold_in(jax.random.fold_in(state.key, _DRAWS), state.update)
        loss, gradient = jax.value_and_grad(self.loss)(
            state.params, batch, draws, self.forcing(state.update), state.rates
        )
        updates, opt_state = self.tx.update(gradient, state.opt_state, state.params)
        rate = state.learning_rate * step_size(self.optimiser, state.update, self.updates)
        params = jax.tree.map(lambda p, u: p + -rate * u, state.params, updates)
        state = state.replace(params=params, opt_state=opt_state, update=state.update + 1)
        return state, loss

    def train_epoch(
        self, state: TrainState, examples: Examples
    ) -> tuple[TrainState, Float[Array, " steps"]]:
        """Every example once, in an order that the state's key and epoch decide: one scan."""
        order = epoch_order(state.key, state.epoch, examples.source.shape[0])

        def update(state, batch):
            return self.train_step(state, take(examples, *batch))

        batches = in_batches(order, self.training.batch_size)
        state, losses = jax.lax.scan(update, state, batches)
        return state.replace(epoch=state.epoch + 1), losses

    def watch(self, state: TrainState, dev_loss: Float[Array, ""]) -> TrainState:
        """Early stopping: keep the parameters if they are the best, unless this run has stopped.

        Stopped runs ride on until all have stopped, so that what a run gets does not depend on the
        stack it is in.
        """
        best = state.best
        if best is None:
            return state
        running = best.stale < self.training.patience
        better = running & (dev_loss < best.loss)
        keep = partial(jax.tree.map, lambda new, old: jnp.where(better, new, old))
        stale = jnp.where(better, 0, best.stale + running)
        return state.replace(
            best=Best(keep(state.params, best.params), keep(dev_loss, best.loss), stale)
        )

    def decode(
        self, params: Params, examples: Examples, policy: Policy, keys: Key[Array, " batch"]
    ) -> Decoded:
        """Free-running answers to a batch: each starts from its target's first symbol alone."""
        encoding = self.apply(params, examples.source, method=Seq2Seq.encode)

        def step(carry, token):
            return self.apply(params, carry, token, encoding, method=Seq2Seq.step)

        return decode(
            step,
            encoding.carry,
            examples.target[:, 0],
            policy=policy,
            eos_id=self.eos_id,
            max_decode_len=examples.target.shape[1] - 1,
            keys=keys,
        )

    def evaluate(
        self, params: Params, examples: Examples
    ) -> tuple[dict[str, Count], Int[Array, "n predicted_time"]]:
        """Every score of `metrics`, and the free-running greedy answer to each example."""
        n = examples.source.shape[0]

        def score(_, indices_and_weight):
            batch = take(examples, *indices_and_weight)
            source, target = batch.examples
            scored = self.scored(target, batch.weight)
            logits = self.apply(params, source, target[:, :-1])
            losses = token_losses(logits, target[:, 1:])
            keys = jax.random.split(jax.random.key(0), source.shape[0])  # greedy draws nothing
            free = self.decode(params, batch.examples, Greedy(), keys).tokens
            counts = {"loss": Count((losses * scored).sum(), scored.sum())}
            for name, predicted in (("teacher_forced", argmax(logits)), ("free_running", free)):
                for metric, value in scores(predicted, target[:, 1:], scored, self.eos_id).items():
                    counts[f"{name}/{metric}"] = value
            return None, (counts, free)

        batches = in_batches(jnp.arange(n), self.training.batch_size)
        _, (counts, free) = jax.lax.scan(score, None, batches)
        totals = jax.tree.map(lambda x: x.sum(axis=0), counts)
        return totals, free.reshape(-1, free.shape[-1])[:n]
