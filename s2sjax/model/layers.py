"""A stack of recurrent layers, in one direction or two, with dropout between them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2sjax.config import Model
from s2sjax.model.cells import Carry, Hidden
from s2sjax.model.dropout import Noise, dropout, dropout_mask, fold_in
from s2sjax.model.initialisers import initialisers
from s2sjax.model.linear import look_up
from s2sjax.model.rnn import Mask, Outputs, Projected, ProjectedStep, Recurrent

Carries = tuple[Carry, ...]  # of every layer, from the bottom; two directions are concatenated
RecurrentMasks = tuple[Hidden | None, ...]  # of every layer, the same at every step

_RECURRENT = 2**31 - 1  # folded into the key; no layer has this index


class Layers(nn.Module):
    """Recurrent layers; the bottom one reads tokens, a context, or both (size 0: not read).

    A token's projected input is a row of one table, also with a learned embedding, so a sequence
    needs look-ups and no product. Fewer symbols than rows, or symbols with dropout, are looked up
    first and then projected.
    """

    num_layers: int
    vocab_size: int
    context_size: int
    config: Model
    directions: int = 1

    def setup(self) -> None:
        c = self.config
        self.token_width = self.vocab_size
        if c.embed_dim is not None and self.vocab_size:
            self.token_width = c.embed_dim
            init = initialisers(c.init, c.hidden_size).embedding
            self.embedding = self.param("embedding", init, (self.vocab_size, c.embed_dim))
        # The attributes' names are those in the parameter tree.
        self.cell, self.above = self._stack()
        if self.directions == 2:
            self.back, self.back_above = self._stack()

    def _stack(self):
        """The bottom layer of one direction, and those above it."""
        c, units = self.config, self.config.hidden_size // self.directions
        above = [Recurrent(c.hidden_size, units, c) for _ in range(self.num_layers - 1)]
        return Recurrent(self.token_width + self.context_size, units, c), above

    def _cells(self, i: int) -> list[Recurrent]:
        """Layer `i` from the bottom, in each direction."""
        if self.directions == 1:
            return [self.above[i - 1] if i else self.cell]
        return [self.above[i - 1], self.back_above[i - 1]] if i else [self.cell, self.back]

    def _project(self, i: int, inputs: Float[Array, "*n inputs"], first_row: int = 0):
        """Projected inputs of layer `i`, one direction after the other."""
        return _concatenate([cell.project(inputs, first_row) for cell in self._cells(i)])

    @property
    def bias(self) -> Float[Array, " gates"]:
        """The bottom layer's bias."""
        return _concatenate([cell.b for cell in self._cells(0)])

    def project(self, tokens: Int[Array, "*n"], noise: Noise = None) -> Float[Array, "*n gates"]:
        """The bottom layer's projected inputs; `noise` acts on learned embeddings."""
        if self.config.embed_dim is None:
            tables = [cell.wx[: self.vocab_size] + cell.b[None] for cell in self._cells(0)]
            return look_up(_concatenate(tables), tokens)
        noisy = noise is not None and noise.rates.dropout is not None
        if noisy or tokens.size < self.vocab_size:
            embedded = look_up(self.embedding, tokens)
            return self._project(0, dropout(embedded, noise))
        return look_up(self._project(0, self.embedding), tokens)

    def project_context(self, context: Hidden) -> ProjectedStep:
        """The context's part of the bottom layer's projected input."""
        return self._project(0, context, self.token_width)

    def recurrent_masks(self, noise: Noise, batch: int) -> RecurrentMasks:
        """Draw the recurrent masks (Gal & Ghahramani, 2016)."""
        noises = (fold_in(fold_in(noise, _RECURRENT), i) for i in range(self.num_layers))
        shape = (batch, self.config.hidden_size)
        return tuple(dropout_mask(noise, "recurrent_dropout", shape) for noise in noises)

    def __call__(
        self,
        z: Projected,
        carries: Carries | None,
        mask: Mask | None,
        noise: Noise,
        recurrent_masks: RecurrentMasks,
    ) -> tuple[Carries, Outputs]:
        """The last carries, and the top layer's outputs."""
        last, outputs = [], z
        for i in range(self.num_layers):
            if i:
                z = self._project(i, dropout(outputs, fold_in(noise, i)))
            carry = None if carries is None else carries[i]
            carry, outputs = self._run(i, z, carry, mask, recurrent_masks[i])
            last.append(carry)
        return tuple(last), outputs

    def _run(self, i, z, carry, mask, recurrent_mask):
        """Run layer `i`; two directions start from zero."""
        if self.directions == 1:
            return self._cells(i)[0](z, carry, mask, recurrent_mask)
        forward, backward = self._cells(i)
        z_forward, z_backward = jnp.split(z, 2, axis=-1)
        parts = (None, None) if recurrent_mask is None else jnp.split(recurrent_mask, 2, axis=-1)
        reversed_mask = None if mask is None else mask[:, ::-1]
        left, hidden = forward(z_forward, None, mask, parts[0])
        right, reversed_hidden = backward(z_backward[:, ::-1], None, reversed_mask, parts[1])
        carry = jax.tree.map(lambda *parts: _concatenate(parts), left, right)
        return carry, _concatenate([hidden, reversed_hidden[:, ::-1]])

    def step(
        self, z: ProjectedStep, carries: Carries, noise: Noise, recurrent_masks: RecurrentMasks
    ) -> tuple[Carries, Hidden]:
        """One step in one direction: the carries, and the top output."""
        new = []
        for i in range(self.num_layers):
            if i:
                z = self._project(i, dropout(new[-1].h, fold_in(noise, i)))
            new.append(self._cells(i)[0].step(z, carries[i], recurrent_masks[i]))
        return tuple(new), new[-1].h


def _concatenate(parts):
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
