"""The encoder-decoder as Linen modules.

Sutskever, Vinyals & Le (2014): recurrent layers read the source, their last state starts others
that write the target. Bahdanau et al. (2015), Luong et al. (2015): with attention, every step also
looks back at the source (`attention`). `Seq2Seq.__call__` scores a whole target at once (teacher
forcing), `encode` and `step` go one symbol at a time; a test holds the two equal.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2sjax.attention import Attention, Memory
from s2sjax.config import Model
from s2sjax.dropout import Noise, dropout, fold
from s2sjax.initialisers import initialisers
from s2sjax.layers import SILENT, Carries, Layers, Noises
from s2sjax.linear import affine, matmul
from s2sjax.rnn import Carry
from s2sjax.vocab import padding_mask

ENCODING, RECURRENCE, DECODING = range(3)
"""Streams of a noise: of the encoder, of the decoder's recurrence, of the decoder's steps."""
_OUT, _CONTEXT, _IN = (2**31 - k for k in (2, 3, 4))  # of noise, that no layer or step is


class State(NamedTuple):
    """What a decoder carries from step to step.

    Attributes:
        carries: of its layers.
        fed: the readout of the step before, where it is part of the next input; else None.
        alignment: how the step before looked at the source; None without attention.
    """

    carries: Carries
    fed: Float[Array, "batch hidden"] | None = None
    alignment: Float[Array, "batch source_time"] | None = None


class Encoding(NamedTuple):
    """What the decoder may use of a source.

    Attributes:
        outputs: the top encoder layer's output at every step.
        mask: true at real symbols, or None where every symbol is real.
        carry: the state that the decoder starts from.
        drive: what the encoder's last output adds to the bottom decoder layer's projected input at
            every step, or None where the decoder does not see it.
        offset: what it adds to the logits of every step, or None.
        memory: what attention looks at, or None.
        noises: dropout of the decoder's pass.
    """

    outputs: Float[Array, "batch time hidden"]
    mask: Bool[Array, "batch time"] | None
    carry: State
    drive: Float[Array, "batch gates"] | None
    offset: Float[Array, "batch vocab"] | None
    memory: Memory | None = None
    noises: Noises = SILENT


class Bridge(nn.Module):
    """The encoder's last hidden state to the first of a decoder layer: ``tanh(h w + b)``.

    Bahdanau et al. (2015), appendix A.2.2.
    """

    config: Model

    @nn.compact
    def __call__(self, h: Float[Array, "batch hidden"]) -> Float[Array, "batch hidden"]:
        """Declare and apply."""
        c = self.config
        draw = initialisers(c.init, c.hidden_size, c.cell)
        w = self.param("w", draw.kernel, (c.hidden_size, c.hidden_size))
        b = self.param("b", draw.bias, (c.hidden_size,))
        return jnp.tanh(affine(h, w, b, c.precision))


class Output(nn.Module):
    """Hidden states, and a context if there is one, to logits over the vocabulary.

    The matrix is its own, or where it is tied an embedding ``[vocab, hidden]`` that is given.
    """

    vocab_size: int
    context_size: int
    config: Model

    def setup(self) -> None:
        """Declare one matrix for both inputs."""
        c = self.config
        draw = initialisers(c.init, c.hidden_size, c.cell)
        if not c.tied_output:
            size = c.hidden_size + self.context_size
            self.w = self.param("w", draw.kernel, (size, self.vocab_size))
        self.b = self.param("b", draw.bias, (self.vocab_size,))

    def project_context(self, context: Float[Array, "batch hidden"]) -> Float[Array, "batch vocab"]:
        """What the context adds to the logits of every step."""
        return matmul(context, self.w[self.config.hidden_size :], self.config.precision)

    def __call__(
        self,
        hidden: Float[Array, "*n hidden"],
        embedding: Float[Array, "vocab hidden"] | None = None,
    ) -> Float[Array, "*n vocab"]:
        """``hidden w + b``."""
        w = self.w[: self.config.hidden_size] if embedding is None else embedding.T
        logits = matmul(hidden, w, self.config.precision)
        return logits + jnp.broadcast_to(self.b, logits.shape)


class Seq2Seq(nn.Module):
    """Encoder -> state, last output, or memory -> decoder -> logits.

    Attributes:
        vocab_size: symbols of the target, and of the source where `source_vocab_size` is None.
        pad_id: the id that is never read, or None where every row is full.
        config: layers, sizes and initial weights.
        source_vocab_size: symbols of a source with a vocabulary of its own.
    """

    vocab_size: int
    pad_id: int | None
    config: Model
    source_vocab_size: int | None = None

    def setup(self) -> None:
        """Encoder, decoder, attention and output layer."""
        c, vocab_size = self.config, self.vocab_size
        repeat = c.decoder == "repeat"
        driven = repeat or c.peeky or c.attend != "after"
        source_size = self.source_vocab_size or vocab_size
        self.encoder = Layers(c.encoder_layers, source_size, 0, c, c.directions)
        self.decoder = Layers(
            c.decoder_layers, 0 if repeat else vocab_size, c.hidden_size if driven else 0, c
        )
        if c.attention is not None:
            self.attention = Attention(c)
        if c.hand_over == "learned":
            self.bridges = [Bridge(c) for _ in range(c.decoder_layers)]
        self.output = Output(vocab_size, c.hidden_size if c.peeky else 0, c)

    def encode(self, source: Int[Array, "batch source_time"], noise: Noise = None) -> Encoding:
        """Read the source; what `pad_id` marks leaves the carries as they are.

        `noise` switches dropout on, here and in the decoder's recurrence.
        """
        z = self.encoder.project(source, fold(fold(noise, ENCODING), _IN))
        return self.read(z, padding_mask(source, self.pad_id), noise)

    def read(
        self,
        z: Float[Array, "batch source_time gates"],
        mask: Bool[Array, "batch source_time"] | None,
        noise: Noise = None,
    ) -> Encoding:
        """`encode` from the projected source on."""
        c = self.config
        batch, source_time = z.shape[:2]
        ours, theirs = fold(noise, ENCODING), fold(noise, RECURRENCE)
        carries, outputs = self.encoder(z, None, mask, self.encoder.noises(ours, batch))
        context = carries[-1].h
        drive = offset = memory = fed = alignment = None
        if c.decoder == "repeat" or c.peeky:
            drive = self.decoder.project_context(context)
        if c.peeky:
            offset = self.output.project_context(context)
        if c.attention is not None:
            memory = self.attention.memory(outputs, mask)
            alignment = jnp.zeros((batch, source_time), z.dtype)
        if c.attend == "feeding":
            fed = jnp.zeros_like(context)
        start = State(self._start(carries, z[:, 0]), fed, alignment)
        noises = self.decoder.noises(theirs, batch)
        return Encoding(outputs, mask, start, drive, offset, memory, noises)

    def _start(self, carries: Carries, z: Float[Array, "batch gates"]) -> Carries:
        """The decoder's first carries: the encoder's, layer by layer from the top down.

        Decoder layers without a counterpart start from zero; so does every one that repeats.
        """
        c, zero = self.config, self.decoder.zero_carries(z)
        if c.decoder == "repeat" or c.hand_over == "zero":
            return zero
        if c.hand_over == "learned":
            top = carries[-1].h
            starts = zip(zero, self.bridges, strict=True)
            return tuple(Carry(blank.c, bridge(top)) for blank, bridge in starts)
        if c.hand_over == "hidden":
            carries = tuple(Carry(jnp.zeros_like(carry.h), carry.h) for carry in carries)
        shared = min(c.encoder_layers, c.decoder_layers)
        return zero[: c.decoder_layers - shared] + carries[c.encoder_layers - shared :]

    def _logits(self, read: Float[Array, "*n hidden"], encoding: Encoding, noise: Noise = None):
        """Logits of a step ``[batch, hidden]`` or of all ``[batch, time, hidden]``."""
        c, offset = self.config, encoding.offset
        read = dropout(read, "dropout", noise)
        logits = self.output(read, self.decoder.embedding if c.tied_output else None)
        if offset is None:
            return logits
        return logits + jnp.broadcast_to(
            offset.reshape(offset.shape[0], *[1] * (read.ndim - 2), -1), logits.shape
        )

    def step(
        self,
        state: State,
        token: Int[Array, " batch"],
        encoding: Encoding,
        noise: Noise = None,
    ) -> tuple[State, Float[Array, "batch vocab"]]:
        """Read one target symbol and give the logits of the next; starts from `encoding.carry`.

        A decoder that repeats leaves the symbol unread. With attention, the alignment is the new
        state's. `noise` switches dropout on and must be another at every step.
        """
        drive = encoding.drive
        if self.config.decoder == "repeat" and drive is not None:
            z = drive
        else:
            z = self.decoder.project(token, fold(noise, _IN))
            z = z if drive is None else z + drive
        state, seen, top = self._advance(state, z, encoding, noise)
        read = self._read_out(seen, top)
        if self.config.attend == "feeding":
            state = state._replace(fed=read)
        return state, self._logits(read, encoding, fold(noise, _OUT))

    def _advance(
        self, state: State, z: Float[Array, "batch gates"], encoding: Encoding, noise: Noise
    ) -> tuple[State, Float[Array, "batch hidden"] | None, Float[Array, "batch hidden"]]:
        """One step from a symbol's projected input: the new state, the context, the top output."""
        c, memory = self.config, encoding.memory
        seen = alignment = None

        def look(query):
            assert memory is not None
            return self.attention.look(query, memory, fold(noise, _CONTEXT))

        if c.attend == "before":
            seen, alignment = look(state.carries[-1].h)
            z = z + self.decoder.project_context(seen)
        elif state.fed is not None:
            z = z + self.decoder.project_context(state.fed)
        carries, top = self.decoder.step(z, state.carries, encoding.noises._replace(noise=noise))
        if memory is not None and seen is None:
            seen, alignment = look(top)
        return State(carries, None, alignment), seen, top

    def _read_out(
        self, seen: Float[Array, "*n hidden"] | None, top: Float[Array, "*n hidden"]
    ) -> Float[Array, "*n hidden"]:
        """What the output layer reads: the top output, with what was seen where there is any."""
        return top if seen is None else self.attention.read_out(seen, top)

    def __call__(
        self,
        source: Int[Array, "batch source_time"],
        target_in: Int[Array, "batch target_time"],
        noise: Noise = None,
    ) -> Float[Array, "batch target_time vocab"]:
        """Logits of every next symbol, the gold symbols before it given (teacher forcing).

        `noise` switches dropout on.
        """
        return self.write(self.encode(source, noise), target_in, fold(noise, DECODING))

    def write(
        self, encoding: Encoding, target_in: Int[Array, "batch target_time"], noise: Noise = None
    ) -> Float[Array, "batch target_time vocab"]:
        """`__call__` from the encoding on."""
        return self.write_aligned(encoding, target_in, noise)[0]

    def write_aligned(
        self, encoding: Encoding, target_in: Int[Array, "batch target_time"], noise: Noise = None
    ) -> tuple[
        Float[Array, "batch target_time vocab"],
        Float[Array, "batch target_time source_time"] | None,
    ]:
        """`write`, and the alignment of every step; None without attention."""
        c, drive, start = self.config, encoding.drive, encoding.carry
        every = None if drive is None else jnp.repeat(drive[:, None], target_in.shape[1], axis=1)
        carries: Carries | None = start.carries
        if c.decoder == "repeat" and every is not None:
            z, carries = every, None  # zero: the first step costs no recurrent product
        else:
            z = self.decoder.project(target_in, fold(noise, _IN))
            z = z if every is None else z + every
        alignment = None
        if c.attend != "after":
            seen, read, alignment = self._unroll(encoding, z, noise)
        else:
            noises = encoding.noises._replace(noise=noise)
            _, read = self.decoder(z, carries, None, noises)
            seen = None
            if encoding.memory is not None:
                noise_seen = fold(noise, _CONTEXT)
                seen, alignment = self.attention.look(read, encoding.memory, noise_seen)
        if c.attend != "feeding":
            read = self._read_out(seen, read)
        return self._logits(read, encoding, fold(noise, _OUT)), alignment

    def _unroll(self, encoding, z, noise):
        """Step by step where a step needs what the one before saw.

        Returns contexts, top outputs and alignments of all steps; instead of top outputs the
        readouts, where these are fed.
        """

        def advance(model, state, now):
            z, time = now
            state, seen, top = model._advance(state, z, encoding, fold(noise, time))
            if model.config.attend == "feeding":
                top = model._read_out(seen, top)
                state = state._replace(fed=top)
            return state, (seen, top, state.alignment)

        scan = nn.scan(
            advance,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=((1, 0),),
            out_axes=1,
        )
        times = jnp.arange(z.shape[1])
        return scan(self, encoding.carry, (z, times))[1]
