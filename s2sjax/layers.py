"""Recurrent layers, one above the other, in one direction or two, with noise between them."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2sjax.config import Model
from s2sjax.dropout import Noise, dropout, fold, kept
from s2sjax.initialisers import initialisers
from s2sjax.linear import look_up
from s2sjax.rnn import Carry, Recurrent, zero_carry

Carries = tuple[Carry, ...]
"""The carry of every layer, from the bottom; of two directions, side by side."""

_RECURRENT = 2**31 - 1  # a stream of the noise that no layer is


class Noises(NamedTuple):
    """Dropout of one pass over a sequence.

    Attributes:
        noise: of what goes from layer to layer.
        kept: masks of the recurrent products, a layer each, or None; the same at every step.
    """

    noise: Noise = None
    kept: tuple[Float[Array, "batch hidden"] | None, ...] | None = None


SILENT = Noises()
"""No dropout."""


class Layers(nn.Module):
    """Recurrent layers; the bottom one reads tokens, a context, or both.

    Tokens are read one-hot or through a learned embedding. Either way the projected input of a
    token is a row of one table of as many rows as there are tokens, so a sequence costs a look-up
    per symbol and no product; where there are more rows than symbols to read, or noise between the
    embedding and the product, symbols are looked up first and projected then. A context that stays
    the same is projected once.

    In two directions (Schuster & Paliwal, 1997) each has half of the units, so that what lies above
    and behind does not change its shape.

    Attributes:
        num_layers: how many.
        vocab_size: kinds of tokens; 0 reads none.
        context_size: width of the context; 0 reads none.
        config: sizes and initial weights.
        directions: 2 also reads from the last step to the first.
    """

    num_layers: int
    vocab_size: int
    context_size: int
    config: Model
    directions: int = 1

    def setup(self) -> None:
        """Declare the embedding, if any, and the layers."""
        c = self.config
        if c.embed_dim is not None and self.vocab_size:
            draw = initialisers(c.init, c.hidden_size, c.cell)
            self.embedding = self.param("embedding", draw.embedding, (self.vocab_size, c.embed_dim))
        self.cell = self._layer(self._token_width + self.context_size)
        self.above = [self._layer(c.hidden_size) for _ in range(self.num_layers - 1)]
        if self.directions == 2:
            self.back = self._layer(self._token_width + self.context_size)
            self.back_above = [self._layer(c.hidden_size) for _ in range(self.num_layers - 1)]

    @property
    def _token_width(self) -> int:
        embed_dim = self.config.embed_dim
        return embed_dim if embed_dim is not None and self.vocab_size else self.vocab_size

    def _layer(self, input_size: int) -> Recurrent:
        c = self.config
        units = c.hidden_size // self.directions
        return Recurrent(input_size, units, c.cell, c.init, c.precision, c.unroll)

    def _cells(self, i: int) -> list[Recurrent]:
        """Layer `i` from the bottom: its directions."""
        forward = self.above[i - 1] if i else self.cell
        if self.directions == 1:
            return [forward]
        return [forward, self.back_above[i - 1] if i else self.back]

    def _project(self, i: int, inputs: Float[Array, "*n inputs"], first: int = 0):
        """Inputs of layer `i`, or a part of them, to its projected ones, directions side by side.

        Concatenating in the order (direction, gate) keeps a direction's gates together.
        """
        return _beside([cell.project(inputs, first) for cell in self._cells(i)])

    @property
    def bias(self) -> Float[Array, " gates"]:
        """What the projected input of the bottom layer has whatever is read."""
        return _beside([cell.b for cell in self._cells(0)])

    def project(self, tokens: Int[Array, "*n"], noise: Noise = None) -> Float[Array, "*n gates"]:
        """Tokens to the bottom layer's projected inputs; `noise` is on learned embeddings."""
        if self.config.embed_dim is None:
            tables = [cell.one_hot_table(self.vocab_size) for cell in self._cells(0)]
            return look_up(_beside(tables), tokens)
        noisy = noise is not None and noise.rates.dropout is not None
        if noisy or tokens.size < self.vocab_size:
            embedded = look_up(self.embedding, tokens)
            return self._project(0, dropout(embedded, "dropout", noise))
        return look_up(self._project(0, self.embedding), tokens)

    def project_context(self, context: Float[Array, "batch hidden"]) -> Float[Array, "batch gates"]:
        """What the context adds to the projected input of a step."""
        return self._project(0, context, self._token_width)

    def zero_carries(self, z: Float[Array, "batch gates"]) -> Carries:
        """The carries before the first step, shaped for the projected input `z`."""
        return (zero_carry(self.config.cell, z),) * self.num_layers

    def noises(self, noise: Noise, batch: int) -> Noises:
        """Dropout of one pass over `batch` sequences; a recurrent mask stays for all its steps.

        Gal & Ghahramani (2016): the hidden state is masked where it enters the recurrent product.
        """
        if noise is None or noise.rates.recurrent_dropout is None:
            return Noises(noise)
        recurrent, shape = fold(noise, _RECURRENT), (batch, self.config.hidden_size)
        masks = [
            kept(fold(recurrent, i), "recurrent_dropout", shape) for i in range(self.num_layers)
        ]
        return Noises(noise, tuple(masks))

    def __call__(
        self,
        z: Float[Array, "batch time gates"],
        carries: Carries | None = None,
        mask: Bool[Array, "batch time"] | None = None,
        noises: Noises = SILENT,
    ) -> tuple[Carries, Float[Array, "batch time hidden"]]:
        """Run over projected inputs: the last carries, and the top layer's outputs."""
        carry, outputs = self._run(0, z, carries, mask, noises)
        last = [carry]
        for i in range(1, self.num_layers):
            z = self._project(i, dropout(outputs, "dropout", fold(noises.noise, i)))
            carry, hidden = self._run(i, z, carries, mask, noises)
            outputs = self._joined(hidden, outputs)
            last.append(carry)
        return tuple(last), outputs

    def _run(self, i, z, carries, mask, noises):
        """Layer `i` over its projected inputs; the second direction starts at the last step.

        Padding then comes first, and leaves the zero carry as it is.
        """
        carry = None if carries is None else carries[i]
        keep = None if noises.kept is None else noises.kept[i]
        if self.directions == 1:
            return self._cells(i)[0](z, carry, mask, keep)
        forward, backward = self._cells(i)
        z_forward, z_backward = jnp.split(z, 2, axis=-1)
        keeps = (None, None) if keep is None else jnp.split(keep, 2, axis=-1)
        turned = None if mask is None else mask[:, ::-1]
        one, there = forward(z_forward, None, mask, keeps[0])
        two, back = backward(z_backward[:, ::-1], None, turned, keeps[1])
        joined = Carry(None if one.c is None else _beside([one.c, two.c]), _beside([one.h, two.h]))
        return joined, _beside([there, back[:, ::-1]])

    def _joined(self, hidden, below):
        """A layer's outputs, what it read added where layers are residual (He et al., 2016)."""
        return hidden + below if self.config.residual else hidden

    def step(
        self,
        z: Float[Array, "batch gates"],
        carries: Carries,
        noises: Noises = SILENT,
    ) -> tuple[Carries, Float[Array, "batch hidden"]]:
        """One step in one direction from the projected input `z`: carries, and the top output."""
        keeps = noises.kept or (None,) * self.num_layers
        new = [self.cell.step(z, carries[0], keeps[0])]
        outputs = new[0].h
        for i in range(1, self.num_layers):
            z = self._project(i, dropout(outputs, "dropout", fold(noises.noise, i)))
            new.append(self._cells(i)[0].step(z, carries[i], keeps[i]))
            outputs = self._joined(new[i].h, outputs)
        return tuple(new), outputs


def _beside(parts):
    """Arrays side by side; one alone as it is."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
