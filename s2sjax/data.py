"""Text pairs to padded id arrays, and the batches of an epoch.

Two kinds of padding, never mixed up: a *space* that justification writes into the text is an
ordinary character, read, predicted and scored; a *pad* fills a row and is neither read nor scored.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2sjax.config import SourceOrder, Text
from s2sjax.tasks import Task
from s2sjax.vocab import BOS, EOS, NO_SYMBOL, SPECIALS, CharacterVocabulary, fill

_BLANK = "\0"  # a space that justification wrote, until it is known whether it is to be read


class Examples(NamedTuple):
    """Examples of one split as int32 ids, on the host or on a device.

    Attributes:
        source: what the encoder reads, ``[..., n, source_time]``.
        target: the start symbol, the answer and the end symbol, ``[..., n, target_time]``. The
            decoder reads all but the last column and predicts all but the first. Where it reads
            nothing, the first column is zero.
    """

    source: Any
    target: Any


class Batch(NamedTuple):
    """Examples of one update or evaluation step; `weight` is 0 for rows that only fill it up."""

    examples: Examples
    weight: Float[Array, " batch"]


def make_vocabulary(task: Task, text: Text) -> CharacterVocabulary:
    """The vocabulary of a task's strings: where every row is full, with no special but those used.

    Rows that are not full need padding, and are given all specials.
    """
    if text.justify is None:
        return CharacterVocabulary(task.characters, SPECIALS)
    begin = (BOS,) if text.start == "bos" else ()
    end = (EOS,) if text.source_eos or text.target_eos else ()
    return CharacterVocabulary(task.characters, begin + end)


def reorder(source: str, order: SourceOrder) -> str:
    """Put a source in an order; blanks around it stay where they are unless all is reversed."""
    match order:
        case "forward":
            return source
        case "reversed":
            return source[::-1]
        case "doubled":
            return source * 2
        case "digits_reversed":
            return re.sub("[0-9]+", lambda operand: operand[0][::-1], source)
        case "operands_swapped":
            bare = source.strip(_BLANK)
            return source.replace(bare, "".join(re.split("([+-])", bare)[::-1]))


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

    @property
    def pad_id(self) -> int | None:
        """Id of what the encoder skips, or None where it reads every symbol."""
        return NO_SYMBOL if self.text.mask_spaces else self.vocabulary.pad_id

    @property
    def source_width(self) -> int:
        """Symbols of a source, its end included."""
        copies = 2 if self.text.source_order == "doubled" else 1
        return copies * self.task.source_width + self.text.lag + self.text.source_eos

    @property
    def target_width(self) -> int:
        """Symbols of a target, start and end included."""
        return self.task.target_width + (self.text.start != "first_target") + self.text.target_eos

    def source(self, question: str) -> str:
        """The question as the encoder is to read it, end symbol aside."""
        return self._laid_out(question).replace(_BLANK, " ")

    def _laid_out(self, question: str) -> str:
        """`source`, with what justification wrote told from other spaces."""
        text, width = self.text, self.task.source_width
        if text.justify_when == "before":
            question = reorder(self._justify(question, width), text.source_order)
        else:
            copies = 2 if text.source_order == "doubled" else 1
            question = self._justify(reorder(question, text.source_order), copies * width)
        return question + " " * text.lag

    def target(self, answer: str) -> str:
        """The answer as the decoder is to write it, start and end symbols aside."""
        width, turn = self.task.target_width, -1 if self.text.target_order == "reversed" else 1
        if self.text.justify_when == "before":
            answer = self._justify(answer, width)[::turn]
        else:
            answer = self._justify(answer[::turn], width)
        return answer.replace(_BLANK, " ")

    def answer(self, written: str) -> str:
        """What was written, read as an answer: the inverse of `target`."""
        return written.strip()[:: -1 if self.text.target_order == "reversed" else 1]

    def _justify(self, text: str, width: int) -> str:
        match self.text.justify:
            case "right":
                return text.rjust(width, _BLANK)
            case "left":
                return text.ljust(width, _BLANK)
            case None:
                return text

    def _source_ids(self, question: str) -> list[int]:
        if not self.text.mask_spaces:
            return self.vocabulary.encode(self.source(question))
        parts = re.split(f"({_BLANK})", self._laid_out(question))
        encode = self.vocabulary.encode
        return [i for part in parts for i in ([NO_SYMBOL] if part == _BLANK else encode(part))]

    def examples(self, pairs: Sequence[tuple[str, str]]) -> Examples:
        """Rows of ids of one width; the width depends on the task alone, never on the pairs."""
        vocab, text = self.vocabulary, self.text
        start = {"bos": lambda: [vocab.bos_id], "nothing": lambda: [0]}.get(text.start, list)()
        source_end = [vocab.eos_id] if text.source_eos else []
        target_end = [vocab.eos_id] if text.target_eos else []
        sources = [self._source_ids(q) + source_end for q, _ in pairs]
        targets = [start + vocab.encode(self.target(a)) + target_end for _, a in pairs]
        return Examples(
            fill(sources, self.source_width, vocab.pad_id),
            fill(targets, self.target_width, vocab.pad_id),
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
