"""A pair of strings to rows of ids, and ids back to text.

There are two kinds of padding. The *spaces* of a justified text are ordinary characters: they are
read, predicted and scored. A *pad* fills a row and is neither read nor scored.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, SupportsIndex

from jaxtyping import Float

from s2sjax.config import SourceOrder, Text
from s2sjax.data.vocab import NO_SYMBOL, Vocabulary, fill

Row = tuple[list[int], list[int]]  # ids of a source and of a target


class Examples(NamedTuple):
    """Examples as int32 ids, on the host or on a device.

    The decoder reads all but the last column of `target` and predicts all but the first.
    """

    source: Any  # ``[..., n, source_time]``
    target: Any  # start symbol, answer and end symbol, ``[..., n, target_time]``


class Batch(NamedTuple):
    """Examples of one update or evaluation step; `weight` is 0 for rows that only fill it up."""

    examples: Examples
    weight: Float[Any, " batch"]


class Formatter(NamedTuple):
    """Strings to rows of ids and back, as `text` says."""

    text: Text
    source: Vocabulary
    target: Vocabulary
    widths: tuple[int, int] | None  # symbols of the longest strings; None: only the pairs tell

    @property
    def source_pad_id(self) -> int | None:
        """Id that the encoder skips; None where it reads every symbol."""
        return NO_SYMBOL if self.text.mask_spaces else self.source.pad_id

    @property
    def row_widths(self) -> tuple[int, int] | None:
        """Widths of full rows, start and end symbols included."""
        return None if self.widths is None else self.with_ends(*self.widths)

    def with_ends(self, source: int, target: int) -> tuple[int, int]:
        """Widths of the rows of a pair with that many symbols."""
        text = self.text
        copies = 2 if text.source_order == "doubled" else 1
        return (
            copies * source + text.lag + text.source_eos,
            target + (text.start != "first_target") + text.target_eos,
        )

    def source_ids(self, question: str) -> list[int]:
        """The row of a source: its symbols in reading order, then the end symbol."""
        text = self.text
        space = self.source.encode(" ") if text.lag or text.source_justify else []
        ids = self.source.encode(_reordered(question, text.source_order))
        ids = self._placed(ids, 0, [NO_SYMBOL] if text.mask_spaces else space) + text.lag * space
        return [*ids, self.source.eos_id] if text.source_eos else ids

    def answer_ids(self, answer: str) -> list[int]:
        """The symbols of an answer in writing order, without start and end symbol."""
        space = self.target.encode(" ") if self.text.target_justify else []
        return self._placed(self.target.encode(answer), 1, space)

    def _placed(self, ids: list[int], side: int, blank: list[int]) -> list[int]:
        """Justify and order the symbols of a side (0 source, 1 target)."""
        text = self.text
        order = (text.source_order, text.target_order)[side]
        justify = (text.source_justify, text.target_justify)[side]
        blanks = (self.widths[side] - len(ids)) * blank if justify and self.widths else []
        left, right = ([], blanks) if justify == "left" else (blanks, [])
        copies, step = 2 if order == "doubled" else 1, -1 if order == "reversed" else 1
        if text.justify_when == "before":
            return (copies * (left + ids + right))[::step]
        return copies * left + (copies * ids)[::step] + copies * right

    def target_ids(self, answer: str) -> list[int]:
        """The row of a target: start symbol (0 where none is read), answer, end symbol."""
        ids, text = self.answer_ids(answer), self.text
        if text.start != "first_target":
            ids = [self.target.bos_id if text.start == "bos" else 0, *ids]
        return [*ids, self.target.eos_id] if text.target_eos else ids

    def row(self, pair: tuple[str, str]) -> Row:
        """The source and the target row of a pair, without padding."""
        return self.source_ids(pair[0]), self.target_ids(pair[1])

    def filled(self, rows: Sequence[Row], widths: tuple[int, int] | None = None) -> Examples:
        """Pad rows to `widths`; by default to those of the task, or of the widest rows."""
        sources, targets = [row[0] for row in rows], [row[1] for row in rows]
        widest = (max(map(len, sources), default=1), max(map(len, targets), default=1))
        source, target = widths or self.row_widths or widest
        return Examples(
            fill(sources, source, self.source.pad_id), fill(targets, target, self.target.pad_id)
        )

    def examples(self, pairs: Iterable[tuple[str, str]]) -> Examples:
        """The rows of pairs, as wide as the task's or the widest."""
        return self.filled([self.row(pair) for pair in pairs])

    def read(self, ids: Iterable[SupportsIndex], given: Sequence[int] = ()) -> str:
        """The answer of decoded ids, without the spaces of justification.

        `given` are symbols that the decoder did not predict; they come before `ids`.
        """
        ends = (self.target.eos_id, NO_SYMBOL)
        written = [*given, *takewhile(lambda i: i not in ends, map(int, ids))]
        backwards = self.text.target_order == "reversed"
        answer = self.target.decode(written[:: -1 if backwards else 1])
        side = self.text.target_justify
        if side and self.text.justify_when == "after" and backwards:
            side = {"left": "right", "right": "left"}[side]
        return {"left": answer.rstrip(" "), "right": answer.lstrip(" ")}.get(side or "", answer)

    def reference(self, answer: str) -> str:
        """An answer as the target's vocabulary spells it, with its unknown words."""
        return self.target.join(self.target.pieces(answer))

    def given(self, answer: str) -> list[int]:
        """The symbols of an answer that the decoder does not predict: its first one, or none."""
        return self.answer_ids(answer)[:1] if self.text.start == "first_target" else []


def _reordered(question: str, order: SourceOrder) -> str:
    """Reorder the digits or the operands of a question; `_placed` does the other orders."""
    if order == "digits_reversed":
        return re.sub("[0-9]+", lambda operand: operand[0][::-1], question)
    if order == "operands_swapped":
        return "".join(re.split("([+-])", question)[::-1])
    return question
