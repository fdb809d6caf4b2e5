"""The encoder-decoder as Linen modules.

Sutskever, Vinyals & Le (2014): recurrent layers read the source, their last state starts others
that write the target. `Seq2Seq.__call__` scores a whole target at once (teacher forcing), `encode`
and `step` go one symbol at a time; a test holds the two equal.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2sjax.config import Model
from s2sjax.initialisers import initialisers
from s2sjax.linear import look_up, matmul
from s2sjax.rnn import Carry, Recurrent, zero_carry
from s2sjax.vocab import padding_mask

Carries = tuple[Carry, ...]
"""The carry of every layer, from the bottom."""


class Encoding(NamedTuple):
    """What the decoder may use of a source.

    Attributes:
        outputs: the top encoder layer's hidden state at every step.
        mask: true at real symbols, or None where every symbol is real.
        carry: the carries that the decoder starts from.
        drive: what the encoder's last output adds to the bottom decoder layer's projected input at
            every step, or None where the decoder does not see it.
        offset: what it adds to the logits of every step, or None.
    """

    outputs: Float[Array, "batch time hidden"]
    mask: Bool[Array, "batch time"] | None
    carry: Carries
    drive: Float[Array, "batch gates"] | None
    offset: Float[Array, "batch vocab"] | None


class Layers(nn.Module):
    """Recurrent layers; the bottom one reads tokens, a context that stays the same, or both.

    Tokens are read one-hot or through a learned embedding. Either way the projected input of a
    token is a row of one table of as many rows as there are tokens, so a sequence costs a look-up
    per symbol and no product. A context is projected once.

    Attributes:
        num_layers: how many.
        vocab_size: kinds of tokens; 0 reads none.
        context_size: width of the context; 0 reads none.
        config: sizes and initial weights.
    """

    num_layers: int
    vocab_size: int
    context_size: int
    config: Model

    def setup(self) -> None:
        """Declare the embedding, if any, and the layers."""
        c = self.config
        if c.embed_dim is not None and self.vocab_size:
            draw = initialisers(c.init, c.hidden_size, c.cell)
            self.embedding = self.param("embedding", draw.embedding, (self.vocab_size, c.embed_dim))
        self.cell = self._layer(self._token_width + self.context_size)
        self.above = [self._layer(c.hidden_size) for _ in range(self.num_layers - 1)]

    @property
    def _token_width(self) -> int:
        embed_dim = self.config.embed_dim
        return embed_dim if embed_dim is not None and self.vocab_size else self.vocab_size

    def _layer(self, input_size: int) -> Recurrent:
        c = self.config
        return Recurrent(input_size, c.hidden_size, c.cell, c.init, c.precision, c.unroll)

    def project(self, tokens: Int[Array, "*n"]) -> Float[Array, "*n gates"]:
        """Tokens to the bottom layer's projected inputs."""
        if self.config.embed_dim is None:
            return look_up(self.cell.one_hot_table(self.vocab_size), tokens)
        return look_up(self.cell.project(self.embedding), tokens)

    def project_context(self, context: Float[Array, "batch hidden"]) -> Float[Array, "batch gates"]:
        """What the context adds to the projected input of every step."""
        return self.cell.project(context, self._token_width)

    def zero_carries(self, z: Float[Array, "batch gates"]) -> Carries:
        """The carries before the first step, shaped for the projected input `z`."""
        return (zero_carry(self.config.cell, z),) * self.num_layers

    def __call__(
        self,
        z: Float[Array, "batch time gates"],
        carries: Carries | None = None,
        mask: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Carries, Float[Array, "batch time hidden"]]:
        """Run over projected inputs: the last carries, and the top layer's hidden states."""
        carry, hidden = self.cell(z, None if carries is None else carries[0], mask)
        last = [carry]
        for i, layer in enumerate(self.above, start=1):
            z = layer.project(hidden)
            carry, hidden = layer(z, None if carries is None else carries[i], mask)
            last.append(carry)
        return tuple(last), hidden

    def step(self, z: Float[Array, "batch gates"], carries: Carries) -> Carries:
        """One step from the projected input `z`."""
        new = [self.cell.step(z, carries[0])]
        for layer, carry in zip(self.above, carries[1:], strict=True):
            new.append(layer.step(layer.project(new[-1].h), carry))
        return tuple(new)


class Output(nn.Module):
    """Hidden states, and a context if there is one, to logits over the vocabulary."""

    vocab_size: int
    context_size: int
    config: Model

    def setup(self) -> None:
        """Declare one matrix for both inputs."""
        c = self.config
        draw = initialisers(c.init, c.hidden_size, c.cell)
        self.w = self.param("w", draw.kernel, (c.hidden_size + self.context_size, self.vocab_size))
        self.b = self.param("b", draw.bias, (self.vocab_size,))

    def project_context(self, context: Float[Array, "batch hidden"]) -> Float[Array, "batch vocab"]:
        """What the context adds to the logits of every step."""
        return matmul(context, self.w[self.config.hidden_size :], self.config.precision)

    def __call__(self, hidden: Float[Array, "*n hidden"]) -> Float[Array, "*n vocab"]:
        """``hidden w + b``."""
        logits = matmul(hidden, self.w[: self.config.hidden_size], self.config.precision)
        return logits + jnp.broadcast_to(self.b, logits.shape)


class Seq2Seq(nn.Module):
    """Encoder -> state, or last output -> decoder -> logits.

    Attributes:
        vocab_size: symbols of source and target.
        pad_id: the id that is never read, or None where every row is full.
        config: layers, sizes and initial weights.
    """

    vocab_size: int
    pad_id: int | None
    config: Model

    def setup(self) -> None:
        """Encoder, decoder and output layer."""
        c, vocab_size = self.config, self.vocab_size
        repeat = c.decoder == "repeat"
        driven = c.hidden_size if repeat or c.peeky else 0
        self.encoder = Layers(c.encoder_layers, vocab_size, 0, c)
        self.decoder = Layers(c.decoder_layers, 0 if repeat else vocab_size, driven, c)
        self.output = Output(vocab_size, c.hidden_size if c.peeky else 0, c)

    def encode(self, source: Int[Array, "batch source_time"]) -> Encoding:
        """Read the source; what `pad_id` marks leaves the carries as they are."""
        return self.read(self.encoder.project(source), padding_mask(source, self.pad_id))

    def read(
        self,
        z: Float[Array, "batch source_time gates"],
        mask: Bool[Array, "batch source_time"] | None,
    ) -> Encoding:
        """`encode` from the projected source on."""
        c = self.config
        carries, outputs = self.encoder(z, None, mask)
        context = carries[-1].h
        drive = offset = None
        if c.decoder == "repeat" or c.peeky:
            drive = self.decoder.project_context(context)
        if c.peeky:
            offset = self.output.project_context(context)
        return Encoding(outputs, mask, self._start(carries, z[:, 0]), drive, offset)

    def _start(self, carries: Carries, z: Float[Array, "batch gates"]) -> Carries:
        """The decoder's first carries: the encoder's, layer by layer from the top down.

        Decoder layers without a counterpart start from zero; so does every one that repeats.
        """
        c, zero = self.config, self.decoder.zero_carries(z)
        if c.decoder == "repeat":
            return zero
        if c.hand_over == "hidden":
            carries = tuple(Carry(jnp.zeros_like(carry.h), carry.h) for carry in carries)
        shared = min(c.encoder_layers, c.decoder_layers)
        return zero[: c.decoder_layers - shared] + carries[c.encoder_layers - shared :]

    def _logits(self, hidden: Float[Array, "*n hidden"], encoding: Encoding):
        """Logits of a step ``[batch, hidden]`` or of all ``[batch, time, hidden]``."""
        logits, offset = self.output(hidden), encoding.offset
        if offset is None:
            return logits
        return logits + jnp.broadcast_to(
            offset.reshape(offset.shape[0], *[1] * (hidden.ndim - 2), -1), logits.shape
        )

    def step(
        self, carry: Carries, token: Int[Array, " batch"], encoding: Encoding
    ) -> tuple[Carries, Float[Array, "batch vocab"]]:
        """Read one target symbol and give the logits of the next; starts from `encoding.carry`.

        A decoder that repeats leaves the symbol unread.
        """
        drive = encoding.drive
        if self.config.decoder == "repeat" and drive is not None:
            z = drive
        else:
            z = self.decoder.project(token)
            z = z if drive is None else z + drive
        carry = self.decoder.step(z, carry)
        return carry, self._logits(carry[-1].h, encoding)

    def __call__(
        self,
        source: Int[Array, "batch source_time"],
        target_in: Int[Array, "batch target_time"],
    ) -> Float[Array, "batch target_time vocab"]:
        """Logits of every next symbol, the gold symbols before it given (teacher forcing)."""
        return self.write(self.encode(source), target_in)

    def write(
        self, encoding: Encoding, target_in: Int[Array, "batch target_time"]
    ) -> Float[Array, "batch target_time vocab"]:
        """`__call__` from the encoding on."""
        drive, carries = encoding.drive, encoding.carry
        every = None if drive is None else jnp.repeat(drive[:, None], target_in.shape[1], axis=1)
        if self.config.decoder == "repeat" and every is not None:
            z, carries = every, None  # zero: the first step costs no recurrent product
        else:
            z = self.decoder.project(target_in)
            z = z if every is None else z + every
        _, hidden = self.decoder(z, carries)
        return self._logits(hidden, encoding)
