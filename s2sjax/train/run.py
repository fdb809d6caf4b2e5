"""A run: all settings which, with a seed, decide every number."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np

from s2sjax.config import Model, Optimiser, Text, Training
from s2sjax.data.addition import Addition
from s2sjax.data.batches import Bucket, Schedule, choose_buckets
from s2sjax.data.dataset import Split, make_formatter, rows_of
from s2sjax.data.rows import Formatter
from s2sjax.data.tasks import TaskConfig
from s2sjax.errors import UserError
from s2sjax.model.cells import find_cell
from s2sjax.model.seq2seq import Seq2Seq
from s2sjax.serial import to_json
from s2sjax.train.step import Trainer


@dataclass(frozen=True)
class Run:
    """Settings of a task, its text, the model, the optimiser and the training."""

    task: TaskConfig = field(default_factory=Addition)
    text: Text = field(default_factory=Text)
    model: Model = field(default_factory=Model)
    optim: Optimiser = field(default_factory=Optimiser)
    train: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        """Refuse parts that do not go together."""
        cell = find_cell(self.model.cell)
        if self.model.decoder_init == "hidden" and not cell.has_c:
            needed = "a Model.cell with a state c, such as 'lstm'"
            raise UserError(f"Model.decoder_init 'hidden' needs {needed}")
        reads_nothing = self.model.decoder == "repeat"
        if reads_nothing != (self.text.start == "nothing"):
            raise UserError(
                "Text.start nothing and Model.decoder repeat go together: "
                f"not {self.text.start} and {self.model.decoder}"
            )
        if reads_nothing and not self.train.always_forced:
            raise UserError("Training.teacher_forcing: Model.decoder repeat reads no symbols")
        orders = ("digits_reversed", "operands_swapped")
        if not isinstance(self.task, Addition) and self.text.source_order in orders:
            kind = type(self.task).__name__
            raise UserError(f"Text.source_order {self.text.source_order}: {kind} has no operands")

    def pinned(self) -> "Run":
        """The same run with the hash of its task's files, so that it goes on with them only."""
        return replace(self, task=self.task.pinned())

    @property
    def formatter(self) -> Formatter:
        """How the run lays out its text; raises UserError for a text that cannot be."""
        return make_formatter(self.task, self.text)


def rows_sizes(run: Run) -> dict[str, int]:
    """Rows of every split."""
    if run.task.sizes is not None:
        return dict(run.task.sizes)
    return {split: len(rows.lengths) for split, rows in _rows(run).items()}


def _rows(run: Run) -> dict[str, Split]:
    """The rows of every split of a task whose pairs no seed decides."""
    return {split: rows_of(run.task, run.text, 0, split) for split in ("train", "dev", "test")}


@lru_cache(maxsize=64)
def make_schedule(run: Run) -> Schedule:
    """Which rows form which batch: the same for all seeds.

    Raises UserError for length buckets of training questions that each seed draws for itself.
    """
    train = run.train
    if train.tokens_per_batch is None:
        n = rows_sizes(run)["train"]
        widths = run.formatter.row_widths
        if widths is None and run.task.sizes is not None:
            kind = type(run.task).__name__
            raise UserError(f"{kind}.sizes needs {kind}.source_width and {kind}.target_width")
        if widths is None:
            widths = rows_of(run.task, run.text, 0, "train").lengths.max(axis=0).tolist()
        source, target = widths
        return Schedule((Bucket(source, target, min(train.batch_size, n)),), n)
    if run.task.sizes is not None:
        raise UserError(
            "Training.tokens_per_batch needs pairs from files: each seed draws other training "
            "questions, of other lengths"
        )
    lengths = rows_of(run.task, run.text, 0, "train").lengths
    return Schedule(choose_buckets(lengths, train.buckets, train.tokens_per_batch), lengths)


def scoring_buckets(run: Run) -> tuple[Bucket, ...]:
    """Widths of rows that are scored: those of training, and one for what is longer."""
    buckets = make_schedule(run).buckets
    if run.formatter.row_widths is not None:
        return buckets
    last = buckets[-1]
    lengths = np.concatenate([rows.lengths for rows in _rows(run).values()])
    source, target = lengths.max(axis=0).tolist()
    more = Bucket(source, target, last.rows)
    return buckets if more[:2] == last[:2] else (*buckets, more)


def make_trainer(run: Run, formatter: Formatter | None = None, updates: int = 1) -> Trainer:
    """The program of a run; learning rate and chances to drop are left to the state.

    `formatter` has its vocabularies, where they were saved; `updates` are those of all epochs.
    """
    formatter = formatter or run.formatter
    optimiser = replace(run.optim, learning_rate=1.0)
    equal = {name: 0.5 for name, rate in run.model.rates.items() if rate}
    sizes = (len(formatter.source), len(formatter.target))
    model = Seq2Seq(*sizes, formatter.source_pad_id, replace(run.model, **equal))  # pyrefly: ignore
    ids = (formatter.target.eos_id, formatter.target.unk_id, formatter.target.pad_id)
    return Trainer(model, optimiser, run.train, updates, *ids, find_cell(run.model.cell))


def program_key(run: Run) -> dict[str, Any]:
    """All that decides which program `run` compiles to, as JSON values by name.

    Runs of one key can be replicas of one stack.
    """
    formatter = run.formatter
    optimiser = {k: v for k, v in to_json(run.optim).items() if k != "learning_rate"}
    drops = {name: rate > 0 for name, rate in run.model.rates.items()}
    rows: dict[str, Any] = {"number": rows_sizes(run)}
    if formatter.row_widths is not None:
        rows["widths"] = dict(zip(("source", "target"), formatter.row_widths, strict=True))
    else:  # each row has its own length, and the lengths decide which rows share a batch
        splits = _rows(run)
        rows["widths"] = {k: [side.shape[1] for side in s.examples] for k, s in splits.items()}
        rows["lengths"] = {
            k: sha256(s.lengths.tobytes()).hexdigest()[:8] for k, s in splits.items()
        }
    return {
        "model": to_json(run.model) | drops,
        "optim": optimiser,
        "train": to_json(run.train),
        "symbols": {
            "in the source vocabulary": len(formatter.source),
            "in the target vocabulary": len(formatter.target),
            "skipped by the encoder": formatter.source_pad_id,
            "that fills targets": formatter.target.pad_id,
            "that ends a target": formatter.target.eos_id,
            "that is unknown": formatter.target.unk_id,
        },
        "rows": rows,
        "batches": [list(bucket) for bucket in make_schedule(run).buckets],
        "scored": [list(bucket) for bucket in scoring_buckets(run)],
    }
