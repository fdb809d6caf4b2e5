"""The encoder-decoder as Linen modules.

Sutskever, Vinyals & Le (2014): an LSTM reads the source, its last carry starts another LSTM that
writes the target. `Seq2Seq.__call__` scores a whole target at once (teacher forcing), `encode` and
`step` go one symbol at a time; a test holds the two equal.
"""

from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from s2sjax.config import Model
from s2sjax.initialisers import initialisers
from s2sjax.rnn import LSTM, Carry, affine, look_up
from s2sjax.vocab import padding_mask


class Encoding(NamedTuple):
    """What the decoder may use of a source.

    Attributes:
        outputs: the encoder's hidden state at every step.
        mask: true at real symbols, or None where every symbol is real.
        carry: the encoder's last carry.
    """

    outputs: Float[Array, "batch time hidden"]
    mask: Bool[Array, "batch time"] | None
    carry: Carry


class TokenLSTM(nn.Module):
    """An LSTM over tokens, read one-hot or through a learned embedding.

    Either way the projected input of a token is a row of one table of as many rows as there are
    tokens, so a sequence costs a look-up per symbol and no product.
    """

    vocab_size: int
    config: Model

    def setup(self) -> None:
        """Declare the embedding, if any, and the recurrent layer."""
        c = self.config
        if c.embed_dim is not None:
            draw = initialisers(c.init, c.hidden_size)
            self.embedding = self.param("embedding", draw.kernel, (self.vocab_size, c.embed_dim))
        inputs = self.vocab_size if c.embed_dim is None else c.embed_dim
        self.cell = LSTM(inputs, c.hidden_size, c.init, c.precision, c.unroll)

    def project(self, tokens: Int[Array, "*n"]) -> Float[Array, "*n gates"]:
        """Tokens to the recurrent layer's projected inputs."""
        if self.config.embed_dim is None:
            return look_up(self.cell.one_hot_table(), tokens)
        return look_up(self.cell.project(self.embedding), tokens)

    def __call__(
        self,
        tokens: Int[Array, "batch time"],
        carry: Carry | None = None,
        mask: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Carry, Float[Array, "batch time hidden"]]:
        """Read a sequence: the last carry, and the hidden state after every token."""
        return self.cell(self.project(tokens), carry, mask)

    def step(self, token: Int[Array, " batch"], carry: Carry) -> Carry:
        """Read one token."""
        return self.cell.step(self.project(token), carry)


class Output(nn.Module):
    """Hidden states to logits over the vocabulary."""

    vocab_size: int
    config: Model

    @nn.compact
    def __call__(self, hidden: Float[Array, "*n hidden"]) -> Float[Array, "*n vocab"]:
        """``hidden w + b``."""
        draw = initialisers(self.config.init, self.config.hidden_size)
        w = self.param("w", draw.kernel, (hidden.shape[-1], self.vocab_size))
        b = self.param("b", draw.bias, (self.vocab_size,))
        return affine(hidden, w, b, self.config.precision)


class Seq2Seq(nn.Module):
    """Encoder LSTM -> carry -> decoder LSTM -> logits.

    Attributes:
        vocab_size: symbols of source and target.
        pad_id: the id that is never read, or None where every row is full.
        config: sizes and initial weights.
    """

    vocab_size: int
    pad_id: int | None
    config: Model

    def setup(self) -> None:
        """Encoder, decoder and output layer."""
        self.encoder = TokenLSTM(self.vocab_size, self.config)
        self.decoder = TokenLSTM(self.vocab_size, self.config)
        self.output = Output(self.vocab_size, self.config)

    def encode(self, source: Int[Array, "batch source_time"]) -> Encoding:
        """Read the source; padding leaves the carry as it is."""
        mask = padding_mask(source, self.pad_id)
        carry, outputs = self.encoder(source, None, mask)
        return Encoding(outputs, mask, carry)

    def step(
        self, carry: Carry, token: Int[Array, " batch"], encoding: Encoding
    ) -> tuple[Carry, Float[Array, "batch vocab"]]:
        """Read one target symbol and give the logits of the next; starts from `encoding.carry`."""
        carry = self.decoder.step(token, carry)
        return carry, self.output(carry.h)

    def __call__(
        self,
        source: Int[Array, "batch source_time"],
        target_in: Int[Array, "batch target_time"],
    ) -> Float[Array, "batch target_time vocab"]:
        """Logits of every next symbol, the gold symbols before it given (teacher forcing)."""
        _, hidden = self.decoder(target_in, self.encode(source).carry)
        return self.output(hidden)
