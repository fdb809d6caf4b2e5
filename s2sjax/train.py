"""One run as pure functions: state, update, epoch, evaluation. `replicas` lifts them over seeds."""

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from s2sjax.config import Optimiser
from s2sjax.data import Batch, Examples, epoch_order, in_batches, take
from s2sjax.decode import Decoded, Greedy, Policy, decode
from s2sjax.losses import token_losses, weighted_mean
from s2sjax.metrics import Count, argmax, scores
from s2sjax.models import Seq2Seq
from s2sjax.vocab import padding_mask

Params = Any


class TrainState(flax.struct.PyTreeNode):
    """All that changes while training; saved and restored as it is.

    Attributes:
        params: the model's parameters.
        opt_state: the optimiser's moments.
        key: what decides the order of batches, a typed key; it never changes.
        epoch: epochs done, int32.
    """

    params: Params
    opt_state: Any
    key: Any
    epoch: Any


@dataclass(frozen=True)
class Trainer:
    """The static half of a run: equal trainers compile to the same programs.

    Attributes:
        model: the encoder-decoder.
        optimiser: settings of Adam.
        batch_size: examples an update.
        eos_id: the symbol that ends a target.
    """

    model: Seq2Seq
    optimiser: Optimiser
    batch_size: int
    eos_id: int

    @property
    def tx(self) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(self.optimiser.learning_rate, eps=self.optimiser.epsilon)

    def init(self, key: Key[Array, ""]) -> TrainState:
        """Initial parameters and an empty optimiser: a pure function of the key."""
        init_key, order_key = jax.random.split(key)
        ids = jnp.zeros((1, 2), jnp.int32)
        params = self.model.init(init_key, ids, ids)["params"]
        return TrainState(params, self.tx.init(params), order_key, jnp.int32(0))

    def apply(self, params: Params, *arguments: Any, method: Any = None) -> Any:
        """Call the model, or one of its methods, with these parameters."""
        return self.model.apply({"params": params}, *arguments, method=method)

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        """Teacher-forced cross-entropy in nats per scored symbol of a batch."""
        source, target = batch.examples
        logits = self.apply(params, source, target[:, :-1])
        losses = token_losses(logits, target[:, 1:])
        return weighted_mean(losses, self.scored(target, batch.weight))

    def scored(
        self, target: Int[Array, "batch target_time"], weight: Float[Array, " batch"]
    ) -> Float[Array, "batch predicted_time"]:
        """Weight of every predicted symbol: 1, or 0 at padding and in filling rows."""
        mask = padding_mask(target[:, 1:], self.model.pad_id)
        weights = jnp.broadcast_to(weight[:, None], target[:, 1:].shape)
        return weights if mask is None else weights * mask

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Float[Array, ""]]:
        """One update: the new state, and the loss before it."""
        loss, gradient = jax.value_and_grad(self.loss)(state.params, batch)
        updates, opt_state = self.tx.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(params=params, opt_state=opt_state), loss

    def train_epoch(
        self, state: TrainState, examples: Examples
    ) -> tuple[TrainState, Float[Array, " steps"]]:
        """Every example once, in an order that the state's key and epoch decide: one scan."""
        order = epoch_order(state.key, state.epoch, examples.source.shape[0])

        def update(state, batch):
            return self.train_step(state, take(examples, *batch))

        state, losses = jax.lax.scan(update, state, in_batches(order, self.batch_size))
        return state.replace(epoch=state.epoch + 1), losses

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

        batches = in_batches(jnp.arange(n), self.batch_size)
        _, (counts, free) = jax.lax.scan(score, None, batches)
        totals = jax.tree.map(lambda x: x.sum(axis=0), counts)
        return totals, free.reshape(-1, free.shape[-1])[:n]
