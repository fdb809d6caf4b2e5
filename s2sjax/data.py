"""Text pairs to padded id arrays, and the batches of an epoch.

Two kinds of padding, never mixed up: a *space* that justification writes into the text is an
ordinary character, read, predicted and scored; a *pad* fills a row and is neither read nor scored.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2sjax.config import Text
from s2sjax.tasks import Task
from s2sjax.vocab import EOS, SPECIALS, CharacterVocabulary, fill


class Examples(NamedTuple):
    """Examples of one split as int32 ids, on the host or on a device.

    Attributes:
        source: what the encoder reads, ``[..., n, source_time]``.
        target: the start symbol, the answer and the end symbol, ``[..., n, target_time]``. The
            decoder reads all but the last column and predicts all but the first.
    """

    source: Any
    target: Any


class Batch(NamedTuple):
    """Examples of one update or evaluation step; `weight` is 0 for rows that only fill it up."""

    examples: Examples
    weight: Float[Array, " batch"]


def make_vocabulary(task: Task, text: Text) -> CharacterVocabulary:
    """The vocabulary of a task's strings, with only an end symbol where nothing else can occur."""
    full_rows = text.justify is not None and text.start == "first_target"
    return CharacterVocabulary(task.characters, (EOS,) if full_rows else SPECIALS)


class Formatter(NamedTuple):
    """Strings to rows of ids, as `text` says.

    Attributes:
        task: gives the widths.
        text: order, justification, start and end.
        vocabulary: gives the ids.
    """

    task: Task
    text: Text
    vocabulary: CharacterVocabulary

    def source(self, question: str) -> str:
        """The question as the encoder is to read it, end symbol aside."""
        if self.text.justify == "right":
            question = question.rjust(self.task.source_width)
        return question[::-1] if self.text.source_order == "reversed" else question

    def target(self, answer: str) -> str:
        """The answer as the decoder is to write it, start and end symbols aside."""
        return answer.rjust(self.task.target_width) if self.text.justify == "right" else answer

    def examples(self, pairs: Sequence[tuple[str, str]]) -> Examples:
        """Rows of ids of one width; the width depends on the task alone, never on the pairs."""
        vocab, text = self.vocabulary, self.text
        end = [vocab.eos_id]
        start = [vocab.bos_id] if text.start == "bos" else []
        source_end = end if text.source_eos else []
        sources = [vocab.encode(self.source(q)) + source_end for q, _ in pairs]
        targets = [start + vocab.encode(self.target(a)) + end for _, a in pairs]
        return Examples(
            fill(sources, self.task.source_width + len(source_end), vocab.pad_id),
            fill(targets, self.task.target_width + len(start) + 1, vocab.pad_id),
        )


def in_batches(
    order: Int[Array, " n"], batch_size: int
) -> tuple[Int[Array, "steps batch"], Float[Array, "steps batch"]]:
    """Cut an order of examples into batches: indices and weights.

    The last, partial batch is kept: it is filled up with example 0 at weight zero.
    """
    n = order.shape[0]
    batch_size = min(batch_size, n)
    steps = -(-n // batch_size)
    padding = (0, steps * batch_size - n)
    indices = jnp.pad(order, padding).reshape(steps, batch_size)
    weights = jnp.pad(jnp.ones(n), padding).reshape(steps, batch_size)
    return indices, weights


def epoch_order(key: Key[Array, ""], epoch: Int[Array, ""], n: int) -> Int[Array, " n"]:
    """The order of `n` examples in an epoch: a pure function of the run's key and the epoch."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), n)


def take(
    examples: Examples, indices: Int[Array, " batch"], weight: Float[Array, " batch"]
) -> Batch:
    """Gather a batch."""
    return Batch(jax.tree.map(lambda rows: rows[indices], examples), weight)
