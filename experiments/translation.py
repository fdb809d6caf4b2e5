"""Does reversing the source help on sentences, and does attention make it needless?

The question: Sutskever, Vinyals & Le (2014) reversed the source and gained 4.7 BLEU without
attention, Luong, Pham & Manning (2015) 1.3. With attention Britz et al. (2017) gained 0.62 over one
layer and 0.78 over two, and lost 0.15 over four. All of them had millions of pairs and one to four
runs. What is left on a corpus that fits on a laptop, with paired seeds?

The command: ``python experiments/translation.py help --task.train help.tsv``, LibreOffice's help,
which ``help_pairs.py`` cuts out of Debian's packages (any language); ``multi30k`` reads
``multi30k/train.de``, ``train.en`` and so on in the current folder; ``pairs --task.train FILE`` any
file of SOURCE, one tab, TARGET; ``accelerator`` is larger: 1, 2 and 4 layers of 512 units. Needs
the extra `text`. ``smoke`` needs no file: it writes number words, German to English.

Time on two CPU cores: see README.md in this folder.

What to expect, written before the run: the signs of the literature, as the predictions below have
them. On so few pairs the likeliest outcome is that no difference can be detected.
"""

from terminal import main

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from attention import grid, model_of

from s2sjax.config import Model, Optimiser, Text, Training
from s2sjax.data.sentences import Sentences
from s2sjax.errors import UserError
from s2sjax.files import write_atomically
from s2sjax.report.claims import Prediction
from s2sjax.study.experiment import Experiment, Study
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.run import Run

LOOKS = Training(
    epochs=8, batch_size=64, eval_every=2, checkpoint_every=2, show_every=8, shown=2,
    tokens_per_batch=1_536, buckets=4,
)  # fmt: skip
HELP = Run(
    Sentences(),
    Text(source_unit="words", target_unit="words", min_count=5, max_length=15),
    Model(hidden_size=64, embed_dim=64, dropout=0.1, init="torch"),
    Optimiser(learning_rate=3e-3, clip=1.0, schedule="cosine"),
    LOOKS,
)
MULTI30K = Sentences(
    train="multi30k/train.de,multi30k/train.en",
    dev="multi30k/val.de,multi30k/val.en",
    test="multi30k/test_2016_flickr.de,multi30k/test_2016_flickr.en",
)
CAPTIONS = replace(
    HELP, task=MULTI30K, text=replace(HELP.text, cut="whitespace", min_count=2, max_length=80)
)
LARGE = replace(
    HELP,
    text=replace(HELP.text, min_count=2, max_length=80),
    model=replace(HELP.model, hidden_size=512, embed_dim=256, dropout=0.3),
    optim=replace(HELP.optim, learning_rate=1e-3),
    train=replace(HELP.train, epochs=15, tokens_per_batch=4_096, buckets=6),
)
SMOKE = replace(
    HELP,
    task=Sentences(train="runs/translation/numbers.tsv"),
    text=replace(HELP.text, min_count=1),
    model=replace(HELP.model, hidden_size=32, embed_dim=16, dropout=0.0),
    optim=replace(HELP.optim, learning_rate=1e-2),
    train=replace(HELP.train, epochs=2, tokens_per_batch=512, buckets=2),
)

PRESETS = {
    "help": ("LibreOffice's help, 64 units, 8 epochs, 6 seeds: for a CPU", Study(HELP, seeds=6)),
    "pairs": ("any file of pairs (--task.train), the same model", Study(HELP, seeds=6)),
    "multi30k": ("Multi30k, German to English, the same model", Study(CAPTIONS, seeds=6)),
    "accelerator": ("any file of pairs, 1, 2 and 4 layers of 512 units", Study(LARGE, seeds=8)),
    "smoke": ("number words that it writes itself, tiny: needs no file", Study(SMOKE, seeds=2)),
}

BIDIRECTIONAL = "attention, bidirectional"
ATTENDING = ("attention, 1 layer, forward", "no attention, 1 layer, forward")  # compared too


def cells(preset: str) -> dict[str, dict[str, Any]]:
    """Settings of every model of a preset, by name. Attention is Bahdanau's (2015)."""
    depths = (1, 2, 4) if preset == "accelerator" else (1, 2)
    found = {
        f"{name}, {n} layer{'s' * (n > 1)}": model_of(score, 1, n)
        for name, score in (("no attention", None), ("attention", "additive"))
        for n in depths
    }
    return found | {BIDIRECTIONAL: model_of("additive", 2, 1)}


def gains(preset: str) -> dict[str, tuple[str, str]]:
    """Reversed against forward in every model."""
    return {name: (f"{name}, reversed", f"{name}, forward") for name in cells(preset)}


def predictions(preset: str) -> dict[str, list[Prediction]]:
    """The signs of the literature, in BLEU."""

    def helps(name: str, source: str, how: Any = "greater") -> Prediction:
        word = "helps" if how == "greater" else "hurts"
        return Prediction(f"{name}: reversal {word} ({source})", *gains(preset)[name], "BLEU", how)

    found = [
        helps("no attention, 2 layers", "Sutskever et al. +4.7, Luong et al. +1.3"),
        helps("no attention, 1 layer", "the same"),
        helps("attention, 1 layer", "Britz et al. +0.62"),
        helps("attention, 2 layers", "Britz et al. +0.78"),
    ]
    if preset == "accelerator":
        found.append(helps("attention, 4 layers", "Britz et al. -0.15", "less"))
    claim, pair = f"{BIDIRECTIONAL}: order does not matter", gains(preset)[BIDIRECTIONAL]
    return {"": [*found, Prediction(claim, *pair, "BLEU", "equal", 1.0)]}


# --- the pairs of `smoke` ---------------------------------------------------------------------

ONES = (
    ["null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
)
TENS = (
    ["zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"],
    ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
)


def number_words(number: int) -> tuple[str, str]:
    """A number from 21 to 99 and more in German and English: 'ein und zwanzig', 'twenty one'."""
    thousands, hundreds, tens, ones = map(int, f"{number:04}")
    german, english = [], []
    for digit, word in ((thousands, ("tausend", "thousand")), (hundreds, ("hundert", "hundred"))):
        if digit:
            german += [ONES[0][digit], word[0]]
            english += [ONES[1][digit], word[1]]
    german += [ONES[0][ones], "und", TENS[0][tens - 2]] if ones else [TENS[0][tens - 2]]
    english += [TENS[1][tens - 2], ONES[1][ones]] if ones else [TENS[1][tens - 2]]
    return " ".join(german), " ".join(english)


def write_numbers(preset: str, study: Study) -> None:
    """Write the file of the preset `smoke`; refuses to replace another file."""
    task = study.run.task
    if preset != "smoke" or task != SMOKE.task or not isinstance(task, Sentences):
        return
    path = Path(task.train)
    numbers = [n for n in range(20, 10_000) if n % 100 >= 20]  # no teens
    chosen = sorted(random.Random(0).sample(numbers, 1_000))
    text = "".join("\t".join(number_words(number)) + "\n" for number in chosen)
    if path.exists() and path.read_bytes() != text.encode():
        raise UserError(f"{path} is to hold the numbers of smoke and holds something else: move it")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)


EXPERIMENT = Experiment(
    "translation", __doc__ or "", PRESETS,
    arms=lambda preset, study: grid(study.run, PRESETS[preset][1].run, cells(preset)),
    pairs=lambda preset: [*gains(preset).values(), ATTENDING],
    metrics=("BLEU", "chrF", "perplexity", EXACT_MATCH),
    scores={"BLEU": "BLEU", "chrF": "chrF", "perplexity": "perplexity", "exact": EXACT_MATCH},
    primary="BLEU", meaning="BLEU", predictions=predictions, any_file=True, gains=gains,
    picture="scores", prepare=write_numbers,
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
