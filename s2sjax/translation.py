"""Sentence pairs in four steps: prepare, build, train, infer.

    model = Model(attention="additive", embed_dim=128, init="torch")
    run = Translation(Sentences(train="pairs.tsv"), model)
    prepared = prepare(run.sentences)                            # preparation.py
    trainer = build(run, prepared)
    translator = train(run, prepared, trainer, Path("runs/mine"))
    print(evaluate(translator, prepared.test).bleu)
    print(translator.translate(["ein Hund ."])[0].text)          # translator.py

The loop of `fit` is over epochs compiled whole, of rows of one width; here an epoch's batches have
several shapes, and an epoch may be long. So this loop is over updates, and stops and saves at any.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.console import Console

from s2sjax import checkpoint
from s2sjax.buckets import Schedule
from s2sjax.config import Translation
from s2sjax.data import Batch
from s2sjax.dropout import Rates
from s2sjax.errors import Interrupted, UserError
from s2sjax.extras import require
from s2sjax.files import read_json, write_json
from s2sjax.fit import diverged, stop_requests, stopped
from s2sjax.metrics import HEADLINE
from s2sjax.preparation import Prepared
from s2sjax.progress import EpochProgress
from s2sjax.report import NONE, Table
from s2sjax.runlog import Record, Workdir
from s2sjax.sentences import Pairs
from s2sjax.serial import to_json
from s2sjax.textmetrics import Bucket, Score, bleu, by_length, chrf, error_rate, exact_match
from s2sjax.train import Trainer, TrainState
from s2sjax.translator import (
    VOCABULARIES,
    Search,
    Translator,
    make_trainer,
    place,
    shapes,
    standing,
)
from s2sjax.words import WordVocabulary

ARM = "model"
"""Name of the one arm of such a run, in its records."""


def build(run: Translation, prepared: Prepared) -> Trainer:
    """The encoder-decoder on the vocabularies of `prepared`, and its updates, as pure functions.

    Raises:
        UserError: the pairs were prepared with other settings than the run's.
    """
    if replace(prepared.sentences, sha256=run.sentences.sha256) != run.sentences:
        raise UserError("these pairs were prepared with other settings: prepare the run's own")
    batches = len(Schedule(prepared.lengths, prepared.buckets, run.seed))
    return make_trainer(run, prepared.form, run.train.epochs * batches)


# --- training ---------------------------------------------------------------------------------


def train(
    run: Translation,
    prepared: Prepared,
    trainer: Trainer,
    folder: Path | str,
    console: Console | None = None,
) -> Translator:
    """Train to the last epoch, or until early stopping; what is already done is not done again.

    Args:
        run: the settings.
        prepared: the pairs, from `prepare`.
        trainer: from `build`.
        folder: the workdir: records, checkpoints, vocabularies. A call with the same settings and
            the same files goes on there, bit for bit as if it had never stopped.
        console: where progress is shown; None shows nothing.

    Returns:
        The trained model: the last, or with `Training.patience` the one with the best dev loss.

    Raises:
        UserError: the folder holds something else, or the loss is no finite number any more.
        Interrupted: a signal asked to stop; the state after the update in progress is saved.
    """
    require("sacrebleu")  # rather now than after an epoch
    run = replace(run, sentences=prepared.sentences)
    with Workdir(Path(folder), to_json(run)) as workdir:
        _write_vocabularies(workdir, prepared)
        console = console or Console(quiet=True)
        if workdir.moved:
            console.print(f"begun under {'; '.join(workdir.moved)}: last digits may differ")
        return _Course(run, prepared, trainer, workdir, console).complete()


def _write_vocabularies(workdir: Workdir, prepared: Prepared) -> None:
    """What `Translator.load` needs; raises UserError where a run goes on with other ones."""
    path = workdir.path / VOCABULARIES
    buckets = [list(bucket) for bucket in prepared.buckets]
    values = {**prepared.form.to_json(), "buckets": buckets}
    if checkpoint.latest(workdir.checkpoints) is None:
        write_json(path, values)
    elif not path.exists() or read_json(path, "restore it") != values:
        raise UserError(
            f"{path} does not hold the vocabularies that these files give now: was another "
            "version of tokenizers installed? Go on with that one, or choose another --workdir"
        )


@lru_cache(maxsize=16)
def update_program(trainer: Trainer) -> Any:
    """(state, sum of losses, batch) to the next two, taking over their memory, and the loss.

    Compiled once for every shape of a batch.
    """

    def update(
        state: TrainState, total: Float[Array, ""], batch: Batch
    ) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
        state, loss = trainer.train_step(state, batch)
        return state, total + loss, loss

    return jax.jit(update, donate_argnums=(0, 1))


@dataclass
class _Course:
    """One training, from wherever its workdir stands to its end."""

    run: Translation
    prepared: Prepared
    trainer: Trainer
    workdir: Workdir
    console: Console

    def complete(self) -> Translator:
        """Do what is left to do."""
        batches = self.prepared.batches(self.run.seed)
        state, total = self._begin(batches)
        update = update_program(self.trainer)
        epochs, each = self.run.train.epochs, len(batches)
        behind: Float[Array, ""] | None = None
        self.since = time.monotonic()
        progress = EpochProgress(self.console, int(state.epoch), epochs)
        with progress, stop_requests("this update") as stop:
            over = stopped(state, self.run.train)
            for number in range(int(state.update) + 1, epochs * each + 1):
                if over:
                    break
                state, total, loss = update(state, total, next(batches)[1])
                if behind is not None:  # looked at while the device is at work on the next
                    self._refuse(behind, number - 1)
                behind = loss
                saved = False
                if number % each == 0:
                    self._refuse(loss, number)
                    state, total, saved = self._end_of_epoch(state, total, batches, progress)
                    behind, over = None, stopped(state, self.run.train)
                if stop:
                    if not saved:
                        self._save(state, total, batches)
                        self._spent()
                    where = f"update {number:,} of {epochs * each:,} (epoch {-(-number // each)})"
                    raise Interrupted(
                        f"stopped after {where} and saved; the same command goes on from there",
                        stop[0],
                    )
        return self._translator(state.scored)

    def _begin(self, batches: Any) -> tuple[TrainState, Float[Array, ""]]:
        """The state to go on from; `batches` is put where it stands."""
        last = checkpoint.latest(self.workdir.checkpoints)
        if last is None:
            self.console.print("drawing weights, compiling ...")
            key = jax.random.key(self.run.seed, impl="threefry2x32")
            rate = jnp.float32(self.run.optim.learning_rate)
            state = jax.jit(self.trainer.init)(key, rate, Rates.of(self.run.model))
            state, total = jax.device_put((state, jnp.float32(0)), place())
        else:
            held = checkpoint.restore(self.workdir.checkpoints, last, shapes(self.trainer))
            state, total, position = held["state"], held["total"], held["data"]
            batches.restore({
                "batches": int(position["batches"]),
                "schedule": np.asarray(position["schedule"]).tobytes().hex(),
            })  # fmt: skip
            self.console.print(f"going on from the checkpoint of update {last:,}")
        done = int(state.epoch)
        self.workdir.forget({ARM}, done)
        told = {r["epoch"] for r in self.workdir.records() if r["metric"] == "epoch_loss"}
        if told != set(range(1, done + 1)):
            raise UserError(
                f"{self.workdir.metrics_file} does not hold the records of the {done} epochs that "
                "the checkpoint has: restore it, or start in another --workdir"
            )
        return state, total

    def _end_of_epoch(
        self,
        state: TrainState,
        total: Float[Array, ""],
        batches: Any,
        progress: EpochProgress,
    ) -> tuple[TrainState, Float[Array, ""], bool]:
        """Look, tell and save where it is time to; the state, a new sum, and whether it saved."""
        self._refuse_weights(state)
        settings = self.run.train
        epoch = int(state.epoch) + 1
        state = state.replace(epoch=jnp.int32(epoch))
        mean = float(total) / len(batches)
        records, told = [self._record("train", epoch, "epoch_loss", mean)], None
        last = epoch == settings.epochs
        if last or epoch % settings.eval_every == 0:
            scores = evaluate(self._translator(state.params), self.prepared.dev)
            if not math.isfinite(scores.loss):
                what = f"the dev loss is {scores.loss} after epoch {epoch}"
                raise diverged(what, self.workdir.checkpoints, "update")
            found = {"loss": scores.loss, "BLEU": scores.bleu.value / 100}
            found |= {"chrF": scores.chrf.value / 100, HEADLINE: scores.exact_match}
            records += [self._record("dev", epoch, name, value) for name, value in found.items()]
            state = self.trainer.watch(state, jnp.float32(scores.loss))
            last = last or stopped(state, settings)
            told = f"training loss {mean:.3f}, dev loss {scores.loss:.3f}, {scores.told}"
            if epoch % settings.show_every < settings.eval_every or last:
                progress.show(self._shown(scores))
        self.workdir.append(records)
        self._spent()
        progress.advance(epoch, told)
        state, total = jax.device_put((state, jnp.float32(0)), place())
        save = last or epoch % settings.checkpoint_every == 0
        if save:
            self._save(state, total, batches)
        return state, total, save

    def _shown(self, scores: "Scores") -> list[tuple[str, str, list[tuple[str, str]]]]:
        """The first dev pairs and their translations."""
        pairs = self.prepared.dev[: self.run.train.shown]
        return [
            (source, self.prepared.form.in_order(target), [("→", written)])
            for (source, target), written in zip(pairs, scores.written, strict=False)
        ]

    def _record(self, split: str, epoch: int, metric: str, value: float) -> Record:
        return record(self.run, split, epoch, metric, value)

    def _translator(self, params: Any) -> Translator:
        return Translator.of(
            self.run, self.prepared.form, self.trainer, params, self.prepared.buckets
        )

    def _spent(self) -> None:
        now = time.monotonic()
        self.workdir.spent(now - self.since)
        self.since = now

    def _refuse(self, loss: Float[Array, ""], number: int) -> None:
        """Raise UserError where the loss of an update is not finite."""
        if not math.isfinite(value := float(loss)):
            what = f"the loss is {value} at update {number:,}"
            raise diverged(what, self.workdir.checkpoints, "update")

    def _refuse_weights(self, state: TrainState) -> None:
        """Raise UserError where a parameter is not finite."""
        leaves = jax.tree.leaves(jax.device_get(state.params))
        if not all(np.isfinite(leaf).all() for leaf in leaves):
            what = f"a parameter is no finite number after update {int(state.update):,}"
            raise diverged(what, self.workdir.checkpoints, "update")

    def _save(self, state: TrainState, total: Float[Array, ""], batches: Any) -> None:
        """Save all there is to go on from; parameters that are no numbers are refused."""
        self._refuse_weights(state)
        held = standing(state, total, batches.schedule.digest)
        checkpoint.save(self.workdir.checkpoints, int(state.update), held)


def record(run: Translation, split: str, epoch: int, metric: str, value: float) -> Record:
    """One measurement of a run."""
    return {
        "arm": ARM,
        "seed": run.seed,
        "split": split,
        "epoch": epoch,
        "metric": metric,
        "value": value,
    }


# --- scoring ----------------------------------------------------------------------------------


class Scores(NamedTuple):
    """How good translations are.

    Attributes:
        bleu: of the corpus. Words are compared as the target's vocabulary cuts them; where symbols
            are no words, sacrebleu cuts ("13a").
        chrf: of the corpus.
        exact_match: share of translations that are the reference.
        error_rate: edits that make translations the references, per word; where symbols are no
            words, per character.
        loss: of the references, in nats per symbol, the end symbol counted.
        lengths: mean chrF of single sentences, 0 to 1, by the number of source symbols.
        written: the translations.
    """

    bleu: Score
    chrf: Score
    exact_match: float
    error_rate: float
    loss: float
    lengths: list[Bucket]
    written: list[str]

    @property
    def perplexity(self) -> float:
        """The loss as a number of equally likely symbols."""
        return math.exp(min(self.loss, 700))

    @property
    def told(self) -> str:
        """The headline."""
        return f"BLEU {self.bleu.value:.1f}, exact {self.exact_match:.1%}"

    def tables(self, name: str) -> list[Table]:
        """The scores, and those by length."""
        rows = (
            ("BLEU", f"{self.bleu.value:.2f}", self.bleu.signature),
            ("chrF", f"{self.chrf.value:.2f}", self.chrf.signature),
            ("exact match", f"{self.exact_match:.1%}", ""),
            ("edits to the reference", f"{self.error_rate:.1%}", "of its symbols, WER or CER"),
            ("perplexity of the references", f"{self.perplexity:.2f}", ""),
            ("loss, nats per symbol", f"{self.loss:.4f}", ""),
        )
        lengths = tuple(
            (b.label, f"{b.n:,}", NONE if b.mean is None else f"{100 * b.mean:.1f}")
            for b in self.lengths
        )
        return [
            Table(f"Scores on {name}", ("what", "score", "signature"), rows),
            Table(f"By length, {name}", ("source symbols", "sentences", "mean chrF"), lengths),
        ]


def evaluate(translator: Translator, pairs: Pairs, search: Search | None = None) -> Scores:
    """Translate the sources and hold the translations against the targets.

    References are what the target's vocabulary makes of a target, cut and lower-cased as it was
    trained on, its unknown words as they stand.

    Raises:
        UserError: there are no pairs, or the extra `text` is not installed.
    """
    if not pairs:
        raise UserError("there is nothing to score: no pairs")
    form = translator.form
    written = [t.text for t in translator.translate([source for source, _ in pairs], search)]
    right = [form.in_order(target) for _, target in pairs]
    log_probs, symbols = translator.log_probs(pairs)
    words = form.target if isinstance(form.target, WordVocabulary) else None
    lower = words is not None and words.rules.lower_case
    each = [chrf([w], [r]).value / 100 for w, r in zip(written, right, strict=True)]
    lengths = [len(form.source.pieces(source)) for source, _ in pairs]
    return Scores(
        bleu(written, right, lowercase=lower, tokenize="none" if words else "13a"),
        chrf(written, right, lowercase=lower),
        exact_match(written, right),
        error_rate(written, right, "word" if words else "character"),
        float(-log_probs.sum(dtype=np.float64) / symbols.sum(dtype=np.float64)),
        [b for b in by_length(each, lengths, _fifths(lengths)) if b.n],
        written,
    )


def _fifths(lengths: Sequence[int]) -> list[int]:
    """Ends of ranges of lengths that hold about a fifth each."""
    return np.unique(np.quantile(lengths, [0.2, 0.4, 0.6, 0.8], method="lower")).tolist()
