"""The encoder-decoder as a Linen module.

Recurrent layers read the source, and their last state starts the layers that write the target
(Sutskever, Vinyals & Le, 2014). With attention (Bahdanau et al., 2015; Luong et al., 2015) every
step also attends to the encoder's outputs. `Seq2Seq.__call__` computes the logits of a target at
once (teacher forcing); `encode` and `step` give the same logits symbol by symbol.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2sjax.config import Model
from s2sjax.model.attention import Attention, Memory
from s2sjax.model.cells import Carry, Hidden, find_cell
from s2sjax.model.dropout import Noise, dropout, fold_in
from s2sjax.model.layers import Carries, Layers, RecurrentMasks
from s2sjax.model.linear import Affine
from s2sjax.model.rnn import Mask, Projected, zero_carry

# Numbers that are folded into dropout's key, one for each use; the last two are above every layer
# and time step.
ENCODING, RECURRENCE, DECODING = range(3)
_OUTPUT, _EMBEDDING = 2**31 - 2, 2**31 - 4

Sources = Int[Array, "batch source_time"]
Targets = Int[Array, "batch target_time"]
Logits = Float[Array, "batch target_time vocab"]


class State(NamedTuple):
    """What a decoder carries from step to step; None: the settings need none."""

    carries: Carries
    previous_readout: Hidden | None = None
    alignment: Float[Array, "batch source_time"] | None = None
    """The last step's attention weights."""


class Encoding(NamedTuple):
    """What the decoder uses of a source; None: the settings need none."""

    initial_state: State
    repeated_input: Float[Array, "batch gates"] | None
    """The encoder's last output, projected: a part of every decoder input."""
    logit_offset: Float[Array, "batch vocab"] | None
    """The part of all logits that comes from the encoder's last output."""
    memory: Memory | None
    recurrent_masks: RecurrentMasks  # of the decoder


def padding_mask(ids: Int[Array, "*n"], pad_id: int | None) -> Bool[Array, "*n"] | None:
    """True at real symbols; None without a pad id."""
    return None if pad_id is None else ids != pad_id


class Seq2Seq(nn.Module):
    """Source ids to logits of target symbols; the encoder skips `pad_id`."""

    source_vocab_size: int
    target_vocab_size: int
    pad_id: int | None
    config: Model

    def setup(self) -> None:
        c, size = self.config, self.config.hidden_size
        repeat = c.decoder == "repeat"
        reads_context = repeat or c.peeky or c.attend != "after"
        self.encoder = Layers(c.encoder_layers, self.source_vocab_size, 0, c, c.directions)
        vocab_size = 0 if repeat else self.target_vocab_size
        self.decoder = Layers(c.decoder_layers, vocab_size, size * reads_context, c)
        if c.attention is not None:
            self.attention = Attention(c)
        if c.decoder_init == "learned":
            self.bridges = [Affine(size, size, c) for _ in range(c.decoder_layers)]
        self.output = Affine(size * (1 + c.peeky), self.target_vocab_size, c)

    def encode(self, source: Sources, noise: Noise = None) -> Encoding:
        """Read the source; `noise` switches dropout on."""
        z = self.encoder.project(source, fold_in(fold_in(noise, ENCODING), _EMBEDDING))
        return self.encode_projected(z, padding_mask(source, self.pad_id), noise)

    def encode_projected(self, z: Projected, mask: Mask | None, noise: Noise = None) -> Encoding:
        """`encode` a source that ``encoder.project`` has projected."""
        c, batch = self.config, len(z)
        encoder_noise = fold_in(noise, ENCODING)
        recurrent_masks = self.encoder.recurrent_masks(encoder_noise, batch)
        carries, outputs = self.encoder(z, None, mask, encoder_noise, recurrent_masks)
        last = carries[-1].h
        repeated_input = logit_offset = memory = previous_readout = alignment = None
        if c.decoder == "repeat" or c.peeky:
            repeated_input = self.decoder.project_context(last)
        if c.peeky:
            logit_offset = self.output(last, c.hidden_size)
        if c.attention is not None:
            memory = self.attention.memory(outputs, mask)
            alignment = jnp.zeros(z.shape[:2], z.dtype)
        if c.attend == "feeding":
            previous_readout = jnp.zeros_like(last)
        state = State(self._initial_carries(carries, z[:, 0]), previous_readout, alignment)
        recurrent_masks = self.decoder.recurrent_masks(fold_in(noise, RECURRENCE), batch)
        return Encoding(state, repeated_input, logit_offset, memory, recurrent_masks)

    def _initial_carries(self, carries, z):
        """The decoder's carries: the encoder's last ones, from the top down, then zeros."""
        c = self.config
        zero = (zero_carry(find_cell(c.cell), z),) * c.decoder_layers
        if c.decoder == "repeat" or c.decoder_init == "zero":
            return zero
        if c.decoder_init == "learned":
            top = carries[-1].h  # Bahdanau et al. (2015), appendix A.2.2
            return tuple(Carry(zero[0].c, jnp.tanh(bridge(top))) for bridge in self.bridges)
        if c.decoder_init == "hidden":
            carries = tuple(Carry(jnp.zeros_like(carry.h), carry.h) for carry in carries)
        shared = min(c.encoder_layers, c.decoder_layers)
        return zero[: c.decoder_layers - shared] + carries[c.encoder_layers - shared :]

    def step(
        self, state: State, token: Int[Array, " batch"], encoding: Encoding, noise: Noise = None
    ) -> tuple[State, Float[Array, "batch vocab"]]:
        """Read one target symbol and predict the next; every step needs a new noise."""
        z = self._project_targets(token, encoding, noise)
        state, context, top = self._advance(state, z, encoding, noise)
        return state, self._logits(context, top, encoding, noise)

    def _project_targets(self, tokens, encoding, noise):
        """The decoder's projected inputs; the repeat decoder ignores the tokens."""
        repeated = encoding.repeated_input
        if repeated is not None:
            repeated = _over_time(repeated, tokens.shape)
            if self.config.decoder == "repeat":
                return repeated
        z = self.decoder.project(tokens, fold_in(noise, _EMBEDDING))
        return z if repeated is None else z + repeated

    def _advance(self, state, z, encoding, noise):
        """One step: state, context, top output. With input feeding: state, None, readout."""
        memory = encoding.memory
        context = alignment = None
        if self.config.attend == "before":
            context, alignment = self.attention.attend(state.carries[-1].h, memory)
            z = z + self.decoder.project_context(context)
        elif state.previous_readout is not None:
            z = z + self.decoder.project_context(state.previous_readout)
        carries, top = self.decoder.step(z, state.carries, noise, encoding.recurrent_masks)
        if memory is not None and context is None:
            context, alignment = self.attention.attend(top, memory)
            if self.config.attend == "feeding":
                readout = self.attention.readout(context, top)
                return State(carries, readout, alignment), None, readout
        return State(carries, None, alignment), context, top

    def _logits(self, context, top, encoding, noise):
        readout = top if context is None else self.attention.readout(context, top)
        logits = self.output(dropout(readout, fold_in(noise, _OUTPUT)))
        if encoding.logit_offset is None:
            return logits
        return logits + _over_time(encoding.logit_offset, logits.shape[:-1])

    def __call__(self, source: Sources, target_in: Targets, noise: Noise = None) -> Logits:
        """Logits of every next symbol, given the gold symbols before it; `noise` is dropout's."""
        encoding = self.encode(source, noise)
        return self.decode_forced(encoding, target_in, fold_in(noise, DECODING))[0]

    def decode_forced(
        self, encoding: Encoding, target_in: Targets, noise: Noise = None
    ) -> tuple[Logits, Float[Array, "batch target_time source_time"] | None]:
        """Logits given the gold symbols, and the attention weights of every step, if any."""
        z = self._project_targets(target_in, encoding, noise)
        context = alignment = None
        if self.config.attend != "after":
            context, top, alignment = self._scan_steps(encoding, z, noise)
        else:
            repeat = self.config.decoder == "repeat"  # None: zero, and saves a recurrent product
            carries = None if repeat else encoding.initial_state.carries
            _, top = self.decoder(z, carries, None, noise, encoding.recurrent_masks)
            if encoding.memory is not None:
                context, alignment = self.attention.attend(top, encoding.memory)
        return self._logits(context, top, encoding, noise), alignment

    def _scan_steps(self, encoding, z, noise):
        """`_advance` over time, where a step depends on the attention of the last one."""

        def advance(model, state, inputs):
            z, time = inputs
            state, context, top = model._advance(state, z, encoding, fold_in(noise, time))
            return state, (context, top, state.alignment)

        parameters: Any = {"variable_broadcast": "params", "split_rngs": {"params": False}}
        scan = nn.scan(advance, in_axes=((1, 0),), out_axes=1, **parameters)
        return scan(self, encoding.initial_state, (z, jnp.arange(z.shape[1])))[1]


def _over_time(x, shape):
    """Repeat ``[batch, n]`` at every step: ``[*shape, n]``, with `shape` ``batch, *time``."""
    return jnp.broadcast_to(x.reshape(len(x), *(1,) * (len(shape) - 1), -1), (*shape, x.shape[-1]))
