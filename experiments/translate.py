"""Translate your own sentence pairs: prepare, build, train, and score what comes out.

The question: how well does an attention encoder-decoder (Bahdanau, Cho & Bengio, 2015)
translate sentences of which it has seen others?

The command: ``python experiments/translate.py base --sentences.train pairs.tsv``, a UTF-8 file of
SOURCE, one tab, TARGET a line; or two files, ``--sentences.train train.de,train.en``. Dev and test
pairs are split off unless ``--sentences.dev`` and ``--sentences.test`` name files. Where the text
is cut into words already: ``--sentences.cut blanks``. Needs the extra `text`. ``smoke`` needs no
file: it learns number words, German to English, from pairs that it makes.

Then ``python experiments/infer.py runs/translate/base`` translates lines, typed or piped.

Time and scores: on 29,000 image captions (Multi30k, German to English), `small` takes a minute an
epoch on two CPU cores and gets to 30 BLEU (README of this folder); `base` is for a GPU and has not
been trained. `smoke` takes a minute and gets the numbers right.

What to expect: on Multi30k's test set of 2016 B. Trevett's notebooks (pytorch-seq2seq) publish
28.3 BLEU with a GRU and attention, 20.6 without attention, and 13.8 with an LSTM. A report with the
learning curve, scores by length and alignments is in the workdir.
"""

import math
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":  # until training starts, Ctrl-C has nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import jax
import tyro
from rich.console import Console

from s2sjax.cli import main, make_console, parse_preset
from s2sjax.config import Model, Optimiser, Training, Translation
from s2sjax.dropout import Rates
from s2sjax.errors import UserError
from s2sjax.files import write_atomically, write_json
from s2sjax.metrics import HEADLINE
from s2sjax.pictures import Heat, heat_maps
from s2sjax.plots import learning_curves
from s2sjax.preparation import Prepared, prepare
from s2sjax.progress import RIGHT, WRONG, duration
from s2sjax.report import Picture, Table, provenance, write_report
from s2sjax.results import Results
from s2sjax.runlog import Workdir, environment
from s2sjax.serial import config_hash, to_json
from s2sjax.taskconfig import Sentences
from s2sjax.train import Trainer
from s2sjax.translation import Scores, build, evaluate, record, train
from s2sjax.translator import Translator

SHOWN = 8
"""Translated test sentences in the report."""
DRAWN, LONGEST_DRAWN = 2, 12
"""Alignments in it, and symbols of a sentence whose alignment can be read."""

BASE = Translation(
    Sentences(),
    Model(
        hidden_size=256,
        encoder_layers=2,
        decoder_layers=2,
        hand_over="learned",
        directions=2,
        attention="additive",
        attend="before",
        embed_dim=256,
        dropout=0.3,
        init="torch",  # of keras, whose embeddings are a twentieth, nothing is learned here
    ),
    Optimiser(learning_rate=1e-3, clip=1.0),
    Training(epochs=20, eval_every=1, checkpoint_every=1, show_every=5, shown=3, patience=4),
)
SMALL = replace(
    BASE,
    sentences=Sentences(buckets=4, tokens_per_batch=2_048),
    model=replace(BASE.model, hidden_size=128, encoder_layers=1, decoder_layers=1, embed_dim=128),
    optim=Optimiser(learning_rate=3e-3, clip=1.0, schedule="cosine"),
    train=replace(BASE.train, epochs=8, batch_size=64, patience=None),
)
SMOKE = replace(
    SMALL,
    sentences=Sentences(train="runs/translate/numbers.tsv", buckets=2, tokens_per_batch=512),
    model=replace(SMALL.model, hidden_size=64, embed_dim=32, dropout=0.0),
    optim=replace(SMALL.optim, learning_rate=1e-2, schedule="cosine"),
    train=replace(SMALL.train, epochs=6, eval_every=2, checkpoint_every=2, show_every=6),
)


@dataclass(frozen=True)
class Command:
    """What was asked for on the command line."""

    preset: tyro.conf.Suppress[str]
    run: Annotated[Translation, tyro.conf.arg(name="")]
    workdir: Path | None = None
    """Folder of the run; the default is runs/translate/PRESET. The same command goes on there."""


PRESETS = {
    "base": ("2 layers of 256 units, two directions, additive attention", BASE),
    "small": ("1 layer of 128 units, 8 epochs: for a CPU", SMALL),
    "smoke": ("number words that it makes itself, tiny: needs no file", SMOKE),
}


# --- the pairs of `smoke` ---------------------------------------------------------------------

_ONES = (
    ["null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
)
_TENS = (
    ["zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"],
    ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
)


def number_words(number: int) -> tuple[str, str]:
    """A number from 2,020 on in German and English, without teens: the orders of the two differ.

    21 is 'ein und zwanzig', 'twenty one'.
    """
    thousands, hundreds, tens, ones = map(int, f"{number:04}")
    german, english = [], []
    for digit, word in ((thousands, ("tausend", "thousand")), (hundreds, ("hundert", "hundred"))):
        if digit:
            german += [_ONES[0][digit], word[0]]
            english += [_ONES[1][digit], word[1]]
    german += [_ONES[0][ones], "und", _TENS[0][tens - 2]] if ones else [_TENS[0][tens - 2]]
    english += [_TENS[1][tens - 2], _ONES[1][ones]] if ones else [_TENS[1][tens - 2]]
    return " ".join(german), " ".join(english)


def write_numbers(path: Path) -> None:
    """Two thousand numbers without teens, an example a line; a file that is another is left."""
    numbers = [n for n in range(20, 10_000) if n % 100 >= 20]
    chosen = sorted(random.Random(0).sample(numbers, 2_000))
    lines = ("\t".join(number_words(number)) for number in chosen)
    text = "\n".join(lines) + "\n"
    if path.exists() and path.read_bytes() != text.encode():
        raise UserError(f"{path} is to hold the numbers of smoke and holds something else: move it")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)


# --- what is told -----------------------------------------------------------------------------


def parameter_table(trainer: Trainer) -> Table:
    """Name, shape and size of every parameter."""
    state = jax.eval_shape(trainer.init, jax.random.key(0), jax.numpy.float32(0), Rates())
    leaves = [
        ("/".join(str(step.key) for step in path), leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    ]
    rows = [(name, " x ".join(map(str, s)), f"{math.prod(s):,}") for name, s in leaves]
    count = sum(math.prod(shape) for _, shape in leaves)
    return Table("Parameters", ("name", "shape", "count"), (*rows, ("all", "", f"{count:,}")))


def examples(prepared: Prepared, scores: Scores) -> Table:
    """The first test sentences, what was written, and what is right."""
    rows = [
        (source, written, right, RIGHT if written == right else WRONG)
        for (source, target), written in zip(prepared.test[:SHOWN], scores.written, strict=False)
        for right in [prepared.form.in_order(target)]
    ]
    headers = ("source", "translation", "reference", "")
    return Table("The first sentences of the test set", headers, tuple(rows))


def pictures(
    results: Results, translator: Translator, prepared: Prepared, folder: Path
) -> list[Picture]:
    """The learning curves, and where the model looked while it wrote some test sentences."""
    told = []
    for metric in ("BLEU", "loss"):
        path = folder / f"{metric.lower()}.png"
        learning_curves(results, metric, {}, path)
        told.append(Picture(path, f"{metric} on the dev set, by epoch"))
    if translator.trainer.model.config.attention is not None:
        told += alignments(translator, prepared, folder / "alignments.png")
    return told


def alignments(translator: Translator, prepared: Prepared, path: Path) -> list[Picture]:
    """Of the longest test sentences that can still be read as a picture."""
    sources = {source: len(prepared.form.source.pieces(source)) for source, _ in prepared.test}
    fitting = [source for source, length in sources.items() if length <= LONGEST_DRAWN]
    chosen = sorted(fitting, key=lambda source: -sources[source])[:DRAWN]
    panels: dict[str, dict[str, Heat]] = {}
    for found in translator.translate(chosen):
        best = found.hypotheses[0]
        if best.alignment is not None:
            heat = Heat(best.alignment, best.symbols, found.source)
            panels[f"{len(panels) + 1}. {found.text[:60]}"] = {"": heat}
    if not panels:
        return []
    heat_maps(panels, path, "Where each word looks", "share of the attention", "test sentences")
    return [Picture(path, "Alignments of test sentences")]


def headline(results: Results) -> str:
    """The answer in a sentence."""
    test = {r["metric"]: r["value"] for r in results["records"] if r["split"] == "test"}
    return (
        f"Test: BLEU {100 * test['BLEU']:.2f} ({results['signatures']['bleu']}), chrF "
        f"{100 * test['chrF']:.2f}, {test[HEADLINE]:.1%} of the sentences exactly right, "
        f"perplexity {math.exp(min(test['loss'], 700)):.2f}."
    )


def tables(results: Results) -> dict[str, Table]:
    """The learning curve."""
    told = {
        (r["epoch"], r["metric"]): r["value"] for r in results["records"] if r["split"] != "test"
    }
    rows = [
        (
            str(epoch),
            f"{told[epoch, 'epoch_loss']:.3f}",
            f"{told[epoch, 'loss']:.3f}",
            *(f"{100 * told[epoch, metric]:.1f}" for metric in ("BLEU", "chrF")),
        )
        for epoch, metric in told
        if metric == "BLEU"
    ]
    headers = ("epoch", "training loss", "dev loss", "dev BLEU", "dev chrF")
    return {"curve": Table("The learning curve", headers, tuple(rows))}


def cover(results: Results, path: Path) -> None:
    """BLEU while training."""
    learning_curves(results, "BLEU", {}, path)


# --- the four steps ---------------------------------------------------------------------------


def translate(preset: str, run: Translation, folder: Path, console: Console) -> Results:
    """Prepare, build, train, infer; then the report."""
    if preset == "smoke" and run.sentences.train == SMOKE.sentences.train:
        write_numbers(Path(run.sentences.train))
    prepared = prepare(run.sentences)
    console.print(prepared.table().rich())
    trainer = build(run, prepared)
    console.print(parameter_table(trainer).rich())
    translator = train(run, prepared, trainer, folder, console)
    console.print("scoring ...")
    scores = evaluate(translator, prepared.test)
    results = finish(preset, replace(run, sentences=prepared.sentences), scores, folder)
    report(results, prepared, translator, scores, folder, console)
    return results


def finish(preset: str, run: Translation, scores: Scores, folder: Path) -> Results:
    """Write results.json: config, environment, seconds, records, and the translations."""
    config = to_json(run)
    with Workdir(folder, config) as workdir:
        records = workdir.records()
        epoch = max(r["epoch"] for r in records)
        found = {"BLEU": scores.bleu.value / 100, "chrF": scores.chrf.value / 100}
        found |= {"loss": scores.loss, HEADLINE: scores.exact_match}
        results = {
            "experiment": "translate",
            "preset": preset,
            "config": config,
            "config_hash": config_hash(config),
            "environment": environment(),
            "seconds": round(workdir.seconds(), 1),
            "signatures": {"bleu": scores.bleu.signature, "chrf": scores.chrf.signature},
            "records": [
                *records,
                *(record(run, "test", epoch, name, value) for name, value in found.items()),
            ],
        }
        write_json(workdir.results_file, results)
        return results


def report(
    results: Results,
    prepared: Prepared,
    translator: Translator,
    scores: Scores,
    folder: Path,
    console: Console,
) -> None:
    """Write report.md and its pictures, and print the same."""
    told: Sequence[Table] = [*scores.tables("the test set"), examples(prepared, scores)]
    made = f"{provenance(results)} It took {duration(results['seconds'])}."
    drawn = pictures(results, translator, prepared, folder)
    title, answer = f"# translate, {results['preset']}", headline(results)
    path = folder / "report.md"
    curve = tables(results).values()
    write_report(path, [title, answer, *drawn, *told, *curve, prepared.table(), made])
    for table in told:
        console.print(table.rich())
    console.print(answer, style="bold", highlight=False)
    console.print(f"report and pictures: {path}", soft_wrap=True)
    console.print(f"translate lines: python experiments/infer.py {folder}", soft_wrap=True)


def body() -> None:
    """Parse, run."""
    commands = {name: (what, Command(name, run)) for name, (what, run) in PRESETS.items()}
    command = parse_preset(__doc__ or "", commands)
    jax.config.update("jax_enable_x64", False)
    folder = command.workdir or Path("runs") / "translate" / command.preset
    translate(command.preset, command.run, folder, make_console())


if __name__ == "__main__":
    main(body)
