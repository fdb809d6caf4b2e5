"""Step four of a translation: sentences in, sentences out, from a trained model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array, Float, Int, Key

from s2sjax import checkpoint
from s2sjax.beam import Beam, beam_search, tile
from s2sjax.buckets import Batches, Bucket, Schedule, rows_per_batch
from s2sjax.config import Translation
from s2sjax.data import Batch
from s2sjax.decode import Greedy, Sampling, decode
from s2sjax.dropout import Rates
from s2sjax.errors import UserError
from s2sjax.files import read_json
from s2sjax.losses import token_losses
from s2sjax.models import Seq2Seq
from s2sjax.preparation import Form
from s2sjax.sentences import Pairs
from s2sjax.serial import from_json
from s2sjax.train import Params, Trainer, TrainState
from s2sjax.unknown import replace_unknown
from s2sjax.vocab import fill

Search = Greedy | Sampling | Beam
"""How translations are looked for."""

VOCABULARIES = "vocabularies.json"
"""File of a workdir: both vocabularies, and the shapes that were trained on."""


class Hypothesis(NamedTuple):
    """One translation of a text.

    Attributes:
        text: what was written.
        score: log probability of all its symbols, in nats; of a beam's divided by its penalty.
        symbols: the same as symbols, the end symbol last if the model came to an end.
        log_probs: of each of them, in nats.
        alignment: how much each looked at every symbol of the source, the source's in the order of
            the text, its end symbol last; None without attention.
    """

    text: str
    score: float
    symbols: tuple[str, ...]
    log_probs: Float[np.ndarray, " written"]
    alignment: Float[np.ndarray, "written read"] | None


class Translated(NamedTuple):
    """What became of a text.

    Attributes:
        source: its symbols, end symbol last.
        hypotheses: its translations, best first; a beam has several.
    """

    source: tuple[str, ...]
    hypotheses: tuple[Hypothesis, ...]

    @property
    def text(self) -> str:
        """The best translation."""
        return self.hypotheses[0].text

    @property
    def score(self) -> float:
        """Its score."""
        return self.hypotheses[0].score


class _Found(NamedTuple):
    """Hypotheses of a batch, as `beam.Beams` has them."""

    tokens: Int[Any, "batch size time"]
    log_probs: Float[Any, "batch size time"]
    scores: Float[Any, "batch size"]
    alignment: Float[Any, "batch size time source_time"] | None


@lru_cache(maxsize=64)
def search_program(trainer: Trainer, search: Search, start_id: int) -> Any:
    """(params, sources, keys, most symbols) to `_Found`; compiled once for all that are equal."""

    def run(
        params: Params,
        source: Int[Array, "batch source_time"],
        keys: Key[Array, " batch"],
        most: int,
    ) -> _Found:
        encoding = trainer.apply(params, source, method=Seq2Seq.encode)
        start = jnp.full(source.shape[0], start_id)
        beside = tile(encoding, search.size) if isinstance(search, Beam) else encoding

        def step(carry, token):
            return trainer.apply(params, carry, token, beside, method=Seq2Seq.step)

        def watch(carry):
            return carry.alignment

        many: Any = {"eos_id": trainer.eos_id, "max_decode_len": most, "watch": watch}
        if isinstance(search, Beam):
            return _Found(*beam_search(step, encoding.carry, start, beam=search, **many))
        found = decode(step, encoding.carry, start, policy=search, keys=keys, **many)
        found = _Found(found.tokens, found.log_probs, found.log_probs.sum(axis=1), found.watched)
        return jax.tree.map(lambda x: x[:, None], found)

    return jax.jit(run, static_argnums=3)


@lru_cache(maxsize=64)
def score_program(trainer: Trainer) -> Any:
    """(params, batch) to the log probability of every target, and how many symbols it has."""

    def run(params: Params, batch: Batch) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        source, target = batch.examples
        logits = trainer.apply(params, source, target[:, :-1])
        scored = trainer.scored(target, batch.weight)
        losses = token_losses(logits, target[:, 1:])
        return -(losses * scored).sum(axis=1), scored.sum(axis=1)

    return jax.jit(run)


@dataclass(frozen=True, eq=False)
class Translator:
    """A model and the vocabularies it was trained with.

    A text longer than any that was trained on is read whole, and may become as many times longer
    than the longest translation trained on; how well is not known. A text without symbols becomes
    an empty one, and the model is not asked.

    Attributes:
        form: the vocabularies.
        trainer: applies the model.
        params: its parameters.
        buckets: the shapes that were trained on.
        batch_size: texts translated at once.
        tokens_per_batch: most positions of a batch that is scored.
    """

    form: Form
    trainer: Trainer
    params: Params
    buckets: tuple[Bucket, ...]
    batch_size: int
    tokens_per_batch: int

    @classmethod
    def load(cls, workdir: Path | str) -> "Translator":
        """The model of a workdir's last checkpoint; with early stopping the best one until then.

        Raises UserError for a folder without one.
        """
        workdir = Path(workdir)
        run, form, buckets = read_run(workdir)
        folder = workdir / "checkpoints"
        last = checkpoint.latest(folder)
        if last is None:
            raise UserError(f"{workdir} has no checkpoint yet: let its training go on")
        trainer = make_trainer(run, form, 1)
        state = checkpoint.restore(folder, last, shapes(trainer))["state"]
        return cls.of(run, form, trainer, state.scored, buckets)

    @classmethod
    def of(
        cls, run: Translation, form: Form, trainer: Trainer, params: Params,
        buckets: tuple[Bucket, ...],
    ) -> "Translator":  # fmt: skip
        """With the sizes that a run sets."""
        tokens = run.sentences.tokens_per_batch
        return cls(form, trainer, params, buckets, run.train.batch_size, tokens)

    def translate(
        self,
        texts: Sequence[str],
        search: Search | None = None,
        *,
        replace_unknowns: bool = False,
        seed: int = 0,
        first: int = 0,
    ) -> list[Translated]:
        """Translate texts; what becomes of one does not depend on the others.

        Args:
            texts: as people write them.
            search: greedy where none is given.
            replace_unknowns: put the source symbol looked at most where the unknown symbol was
                written.
            seed: of `Sampling`; the n-th text has the n-th draws.
            first: number of the first text, where these go on from others.

        Raises:
            UserError: unknown symbols cannot be replaced, because the model has no attention.
        """
        search = search or Greedy()
        if replace_unknowns and self.trainer.model.config.attention is None:
            raise UserError("unknown words are replaced by what the model attends to: it does not")
        rows = [self.form.read(text) for text in texts]
        empty = Hypothesis("", 0.0, (), np.zeros(0, np.float32), None)
        done = [Translated((self._end,), (empty,)) for _ in texts]
        for numbers, found in self._found(rows, search, seed, first):
            for i, number in enumerate(numbers):
                one = jax.tree.map(itemgetter(i), found)
                done[number] = self._told(texts[number], one, replace_unknowns)
        return done

    def _found(
        self, rows: Sequence[Sequence[int]], search: Search, seed: int, first: int
    ) -> Iterator[tuple[Sequence[int], _Found]]:
        """Texts by number, and their hypotheses, a batch at a time."""
        run = search_program(self.trainer, search, self.form.target.bos_id)
        keys = jax.random.key(seed, impl="threefry2x32")
        widths: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            if len(row) > 1:
                widths.setdefault(self._width(len(row)), []).append(number)
        for width, numbers in sorted(widths.items()):
            beyond = math.ceil(width / self.buckets[-1].source)
            most = (self.buckets[-1].target - 1) * beyond
            size = 1 if len(rows) == 1 else max(self.batch_size // beyond**2, 1)  # alignments grow
            for begin in range(0, len(numbers), size):
                some = numbers[begin : begin + size]
                places = [*some, *[some[0]] * (size - len(some))]  # a row of padding has no words
                source = fill([rows[n] for n in places], width, self.form.pad_id)
                own = jax.vmap(jax.random.fold_in, (None, 0))(keys, first + jnp.array(places))
                yield some, jax.device_get(run(self.params, source, own, most))

    def _width(self, length: int) -> int:
        """The width that a row of this length is read at, whatever is read beside it."""
        for bucket in self.buckets:
            if length <= bucket.source:
                return bucket.source
        widest = self.buckets[-1].source
        return widest * math.ceil(length / widest)

    @property
    def _end(self) -> str:
        return self.form.source.show(self.form.source.eos_id)

    def _told(self, text: str, found: _Found, replace_unknowns: bool) -> Translated:
        """The hypotheses of one text, ``[size, ...]``, as text."""
        source, target = self.form.source, self.form.target
        ids, told = source.encode(text), []
        for n in np.flatnonzero(np.isfinite(found.scores)):  # others fill a beam up
            tokens = found.tokens[n]
            spelt = target.spell(tokens)
            length = min(len(spelt) + 1, len(tokens))
            seen, written = None, target.decode(tokens)
            if found.alignment is not None:
                seen = found.alignment[n, :length, : len(ids) + 1]
                order = [*range(len(ids))[:: -1 if self.form.turned else 1], len(ids)]
                seen = seen[:, order]
                if replace_unknowns:
                    spoken = ~np.isin(tokens[: len(spelt)], (self.form.pad_id, target.bos_id))
                    words = [symbol for symbol, kept in zip(spelt, spoken, strict=True) if kept]
                    unknown = (tokens[: len(spelt)] == target.unk_id)[spoken].tolist()
                    looks = seen[: len(spelt)][spoken]
                    words = replace_unknown(words, unknown, looks, source.pieces(text))
                    written = target.join(words)
            shown = tuple(target.show(int(i)) for i in tokens[:length])
            score, log_probs = float(found.scores[n]), found.log_probs[n, :length]
            told.append(Hypothesis(written, score, shown, log_probs, seen))
        return Translated((*map(source.show, ids), self._end), tuple(told))

    def log_probs(self, pairs: Pairs) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Log probability of each given target, in nats, and of how many symbols it is the sum.

        The end symbol counts; unknown words are asked for as the unknown symbol.
        """
        if not pairs:
            return np.zeros(0, np.float32), np.zeros(0, np.float32)
        rows = [(self.form.read(source), self.form.write(target)) for source, target in pairs]
        lengths = np.array([(len(source), len(target)) for source, target in rows], np.int64)
        source, target = np.maximum(lengths.max(axis=0), self.buckets[-1][:2]).tolist()
        widest = Bucket(source, target, rows_per_batch(source + target, self.tokens_per_batch))
        batches = Batches(rows, Schedule(lengths, (*self.buckets, widest), 0), self.form.pad_id)
        run, out = score_program(self.trainer), np.zeros((2, len(pairs)), np.float32)
        for bucket, numbers in batches.schedule.plan(0):
            found = jax.device_get(run(self.params, batches.batch(bucket, numbers)))
            out[:, numbers] = np.stack(found)[:, : len(numbers)]
        return out[0], out[1]


def make_trainer(run: Translation, form: Form, updates: int) -> Trainer:
    """The pure functions of a run: its model on two vocabularies, its updates.

    Args:
        run: the settings.
        form: the vocabularies.
        updates: of the whole training, which schedules of the step size go by.
    """
    model = Seq2Seq(len(form.target), form.pad_id, run.model, len(form.source))
    return Trainer(model, run.optim, run.train, updates, form.target.eos_id)


def standing(state: TrainState, total: Float[Array, ""], schedule: str) -> dict[str, Any]:
    """What a checkpoint holds: the model, the epoch so far, and where in the data it stands.

    Args:
        state: after an update.
        total: sum of the losses of this epoch's updates.
        schedule: `Schedule.digest`.
    """
    digest = np.frombuffer(bytes.fromhex(schedule), np.uint8)
    position = {"batches": state.update + 0, "schedule": jnp.asarray(digest)}
    return {"state": state, "total": total, "data": position}


def shapes(trainer: Trainer) -> dict[str, Any]:
    """Shapes and places of what a checkpoint holds; nothing is computed."""
    zero = jnp.float32(0)
    key = jax.random.key(0, impl="threefry2x32")
    rates = Rates.of(trainer.model.config)
    tree = jax.eval_shape(lambda: standing(trainer.init(key, zero, rates), zero, 12 * "0"))
    at = place()
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), tree)


def place() -> SingleDeviceSharding:
    """Where all arrays live: one device, said so that restored and new ones do not differ in it.

    A program is compiled again for an array whose place is fixed where another's was not.
    """
    return SingleDeviceSharding(jax.devices()[0])


def read_run(workdir: Path) -> tuple[Translation, Form, tuple[Bucket, ...]]:
    """The settings of a workdir's run, its vocabularies, and its shapes of batches.

    Raises UserError for a folder that is no workdir of a translation.
    """
    config, path = workdir / "config.json", workdir / VOCABULARIES
    for file in (config, path):
        if not file.is_file():
            raise UserError(f"{file} does not exist: give the workdir of a translation")
    remedy = "give the workdir of a translation, or train it again in another one"
    held, values = read_json(config, remedy), read_json(path, remedy)
    if isinstance(held, dict):
        held.pop("environment", None)
    run = from_json(Translation, held, str(config))
    match values:
        case {"buckets": [_, *_] as buckets, **form} if all(map(_is_shape, buckets)):
            return run, Form.from_json(form, str(path)), tuple(Bucket(*b) for b in buckets)
    raise UserError(f"{path} is damaged: {remedy}")


def _is_shape(value: Any) -> bool:
    """Whether a JSON value is a bucket's."""
    match value:
        case [int(), int(), int()]:
            return True
    return False
