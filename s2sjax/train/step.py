"""One run as pure functions: state, update, epoch, evaluation. `replicas` lifts them over seeds."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt

from s2sjax.config import Optimiser, Training
from s2sjax.data.batches import epoch_order
from s2sjax.data.rows import Batch, Examples
from s2sjax.data.vocab import NO_SYMBOL
from s2sjax.model.beam import Beam, Beams, beam_search, tile
from s2sjax.model.cells import Cell
from s2sjax.model.decode import Greedy, Sampling, argmax, decode
from s2sjax.model.dropout import DropoutNoise, Noise, Rates, fold_in
from s2sjax.model.seq2seq import DECODING, Encoding, Seq2Seq, State, padding_mask
from s2sjax.train.losses import token_losses, weighted_mean
from s2sjax.train.metrics import Count, is_exact_match, scores
from s2sjax.train.optimiser import step_size, transformation

Params = Any
Policy = Greedy | Sampling | Beam
"""How answers are looked for."""

_DRAWS = 2**31 - 1  # folded into the key; no epoch has this number
_NOISE = 2**31 - 2  # a stream of an update's draws


def wrap(key: UInt[Array, " 2"]) -> Key[Array, ""]:
    """Key data as a typed key; the generator is threefry2x32, whatever JAX's settings say."""
    return jax.random.wrap_key_data(key, impl="threefry2x32")


class Best(flax.struct.PyTreeNode):
    """The parameters with the best dev loss so far; fixed once a replica has stopped."""

    params: Params
    loss: Any  # on dev, in nats per scored symbol
    stale: Any  # evaluations since, int32


class TrainState(flax.struct.PyTreeNode):
    """All that changes while training, and the numbers in which runs of one program may differ."""

    params: Params
    opt_state: Any
    learning_rate: Any
    rates: Rates  # chances to drop
    key: Any  # of the order of batches and of every draw: key data, uint32 [2], never changed
    update: Any  # updates done, int32
    epoch: Any  # epochs done, int32
    best: Any  # `Best`, or None without early stopping

    @property
    def scored(self) -> Params:
        """The parameters to score: with early stopping the best, as soon as there are any."""
        if self.best is None or np.isinf(self.best.loss).all():
            return self.params
        return self.best.params


@dataclass(frozen=True)
class Trainer:
    """The static half of a run: equal trainers compile to the same programs.

    Learning rate and chances to drop are those of the state; those of the settings are not used.
    """

    model: Seq2Seq
    optimiser: Optimiser
    training: Training
    updates: int  # of all epochs
    eos_id: int  # ends a target; or `vocab.NO_SYMBOL`
    unk_id: int  # stands for unknown symbols, never right; or `vocab.NO_SYMBOL`
    pad_id: int | None  # fills targets, never scored
    cell: Cell | None = None  # of the model: one that was defined anew is another program

    def init(
        self, key: UInt[Array, " 2"], learning_rate: Float[Array, ""], rates: Rates
    ) -> TrainState:
        """The state before the first update: a pure function of the key's data."""
        init_key, run_key = jax.random.split(wrap(key))
        ids, zero = jnp.zeros((1, 2), jnp.int32), jnp.int32(0)
        params = self.model.init(init_key, ids, ids)["params"]
        best = None
        if self.training.patience is not None:
            best = Best(params, jnp.float32(jnp.inf), zero)
        moments, key = transformation(self.optimiser).init(params), jax.random.key_data(run_key)
        return TrainState(params, moments, learning_rate, rates, key, zero, zero, best)

    def apply(self, params: Params, *arguments: Any, method: Any = None) -> Any:
        """Call the model, or one of its methods, with these parameters."""
        return self.model.apply({"params": params}, *arguments, method=method)

    def encode(self, params: Params, source: Int[Array, "batch source_time"]) -> Encoding:
        """Read sources."""
        return self.apply(params, source, method=Seq2Seq.encode)

    def step(
        self, params: Params, state: State, token: Int[Array, " batch"], encoding: Encoding
    ) -> tuple[State, Float[Array, "batch vocab"]]:
        """Read a symbol: the decoder's state, and logits of the next one."""
        return self.apply(params, state, token, encoding, method=Seq2Seq.step)

    def loss(
        self,
        params: Params,
        batch: Batch,
        key: Key[Array, ""],
        forcing: Float[Array, ""] | float,
        rates: Rates,
    ) -> Float[Array, ""]:
        """Cross-entropy in nats per scored symbol of a batch, smoothed if the training is.

        `key` draws what is dropped, and what is fed where gold symbols are not; `forcing` is the
        chance that a gold symbol is fed.
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
        """Logits where each symbol fed is gold with chance `forcing`, else the model's own draw.

        Bengio et al. (2015), "Scheduled sampling". The choice is made for every symbol but the
        first, which is gold; no gradient goes through a draw.
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
        adam = transformation(self.optimiser)
        updates, opt_state = adam.update(gradient, state.opt_state, state.params)
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
        losses: Float[Array, " updates"],  # of this epoch; new ones are written in
        examples: Examples,  # all training rows
        indices: Int[Array, "k rows"],  # of the rows of every batch of the bucket
        weights: Float[Array, "k rows"],  # 0 where a row only fills a batch
        first: Int[Array, ""],  # number of the first batch
        count: Int[Array, ""],
        *,
        widths: tuple[int, int],  # of the bucket
    ) -> tuple[TrainState, Float[Array, " updates"], Bool[Array, ""]]:
        """One update with each of `count` batches of one bucket.

        Returns the new state and losses, and whether all parameters are finite.
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
        """Count the epoch; early stopping keeps the parameters if their dev loss is the best.

        A dev loss of NaN was not evaluated. Replicas that have stopped train on until all have, and
        keep what they had: it does not depend on the stack.
        """
        if (best := state.best) is not None:
            running = ~jnp.isnan(dev_loss) & (best.stale < self.training.patience)
            better = running & (dev_loss < best.loss)
            keep = partial(jax.tree.map, lambda new, old: jnp.where(better, new, old))
            stale = jnp.where(better, 0, best.stale + running)
            best = Best(keep(state.params, best.params), keep(dev_loss, best.loss), stale)
        return state.replace(best=best, epoch=state.epoch + 1)

    def decode(
        self,
        params: Params,
        examples: Examples,
        keys: Key[Array, " batch"],
        *,
        policy: Policy,
        max_decode_len: int,
        never: tuple[int, ...] = (),
        align: bool = False,
    ) -> Beams:
        """Free-running answers, best first, one a row but for a `Beam`.

        Each starts from its target's first symbol alone. `keys` decide what is drawn; with `align`
        the attention weights of each step are collected. Symbols of `never` are not written.
        """
        encoding = self.encode(params, examples.source)
        carry, start = encoding.initial_state, examples.target[:, 0]
        settings: Any = {"eos_id": self.eos_id, "max_decode_len": max_decode_len, "never": never}
        if align:
            settings["collect"] = self.alignment
        if isinstance(policy, Beam):
            encoding = tile(encoding, policy.size)

        def step(carry, token):
            return self.step(params, carry, token, encoding)

        if isinstance(policy, Beam):
            return beam_search(step, carry, start, beam=policy, **settings)
        one = decode(step, carry, start, policy=policy, keys=keys, **settings)
        found = Beams(one.tokens, one.log_probs, one.log_probs.sum(axis=1), one.collected)
        return jax.tree.map(lambda x: x[:, None], found)

    def alignment(self, state: State) -> Any:
        """The attention weights of the last step."""
        return state.alignment

    def forced(
        self, params: Params, examples: Examples, *, align: bool
    ) -> tuple[Float[Array, " n"], Float[Array, "n predicted source"] | None]:
        """Log probability of each target, and the attention weights of its steps if asked for."""
        source, target = examples
        logits, alignment = self.apply(
            params,
            self.encode(params, source),
            target[:, :-1],
            method=Seq2Seq.decode_forced,
        )
        losses = token_losses(logits, target[:, 1:]) * self.scored(target, jnp.ones(len(target)))
        return -losses.sum(axis=1), alignment if align else None

    def evaluate(
        self,
        params: Params,
        examples: Examples,
        weights: Float[Array, "k rows"],
        *,
        max_decode_len: int,
    ) -> tuple[dict[str, Count], Int[Array, "k rows time"], Bool[Array, "k rows"]]:
        """Every score of `metrics` on batches ``[k, rows, time]``.

        Returns counts of each batch by metric, greedy free-running answers, and which are right.
        """

        def score(_, batch):
            source, target = batch.examples
            scored = self.scored(target, batch.weight)
            logits = self.apply(params, source, target[:, :-1])
            losses = token_losses(logits, target[:, 1:])
            keys = jax.random.split(jax.random.key(0), source.shape[0])  # greedy draws nothing
            greedy: Any = {"policy": Greedy(), "max_decode_len": max_decode_len}
            free = self.decode(params, batch.examples, keys, **greedy).tokens[:, 0]
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
    """Gather a batch of these widths."""
    source, target = widths
    rows = Examples(examples.source[indices, :source], examples.target[indices, :target])
    return Batch(rows, weight)
