"""Translate lines with a trained model: `translate.py` has made its workdir.

    python experiments/infer.py runs/translate/small "ein Hund läuft ."
    python experiments/infer.py runs/translate/small --beam 5 < in.txt > out.txt
    python experiments/infer.py runs/translate/small                       (lines typed)

Piped lines come out one translation a line, in their order; an empty line stays empty. Takes about
ten seconds to start. The model need not be finished: its last checkpoint is what translates, with
early stopping the best model until then.
"""

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":  # there is nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import jax
import tyro

from s2sjax.beam import Beam
from s2sjax.cli import main, parse
from s2sjax.decode import Greedy, Sampling
from s2sjax.errors import UserError
from s2sjax.translator import Search, Translated, Translator


@dataclass(frozen=True)
class Infer:
    """What was asked for on the command line."""

    workdir: tyro.conf.Positional[Path]
    """Folder of a run of translate.py."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")] = ()
    """What to translate; without any it is read line by line."""
    beam: int | None = None
    """Search with so many hypotheses; None always takes the likeliest symbol."""
    length_penalty: float = 1.0
    """Of the beam (Wu et al., 2016): 0 favours short translations."""
    n_best: int = 1
    """Translations of each line, each with its score and a tab before it where more than one."""
    temperature: float | None = None
    """Draw symbols instead, sharper towards 0."""
    top_k: int | None = None
    """Draw among the k likeliest."""
    top_p: float = 1.0
    """Draw among the likeliest that make up this share."""
    seed: int = 0
    """Of the draws."""
    replace_unknown: bool = False
    """Write the source word looked at most instead of <unk>; for models with attention."""

    def search(self) -> Search:
        """How to look; raises UserError for options that do not go together."""
        if self.beam is not None and self.beam < 1:
            raise UserError(f"--beam must be at least 1, not {self.beam}")
        if not 1 <= self.n_best <= (self.beam or 1):
            raise UserError(
                f"--n-best must be from 1 to --beam, which is {self.beam or 'not given'}"
            )
        if self.temperature is None and (self.top_k, self.top_p, self.seed) != (None, 1.0, 0):
            raise UserError("--top-k, --top-p and --seed need --temperature: nothing is drawn")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed must be from 0 to 2^31 - 1, not {self.seed}")
        if self.beam is None and self.length_penalty != 1.0:
            raise UserError("--length-penalty needs --beam")
        if self.beam is not None and self.temperature is not None:
            raise UserError("--beam and --temperature exclude each other")
        if self.beam is not None:
            return Beam(self.beam, self.length_penalty)
        if self.temperature is not None:
            return Sampling(self.temperature, self.top_k, self.top_p)
        return Greedy()


def lines_of(translated: Translated, n_best: int) -> Iterator[str]:
    """A translation, or the best ones with their scores; never more than a line each."""
    for hypothesis in translated.hypotheses[:n_best]:
        text = " ".join(hypothesis.text.splitlines())
        yield text if n_best == 1 else f"{hypothesis.score:.4f}\t{text}"


def lines_in() -> Iterator[str]:
    """The lines of the standard input, whatever the locale; raises UserError for other than UTF-8.

    A byte-order mark does not matter.
    """
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(f"line {number:,} is no UTF-8 text: save the lines as UTF-8") from error


def _is_text(argument: str) -> bool:
    """Whether a command line's argument was UTF-8: other bytes come as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def infer() -> None:
    """Parse, load, translate."""
    asked = parse(Infer, __doc__ or "")
    search = asked.search()
    if not all(map(_is_text, asked.texts)):
        raise UserError("the text to translate is no UTF-8")
    jax.config.update("jax_enable_x64", False)
    translator = Translator.load(asked.workdir)
    typed = not asked.texts and sys.stdin.isatty()
    if typed:
        print("Type a sentence and Enter; Ctrl-D ends.")
    texts = iter(asked.texts) if asked.texts else lines_in()
    size = 1 if typed else 16 * translator.batch_size  # many at once fill the batches of each width
    settings, done = {"replace_unknowns": asked.replace_unknown, "seed": asked.seed}, 0
    while some := list(islice(texts, size)):
        for translated in translator.translate(some, search, **settings, first=done):
            print(*lines_of(translated, asked.n_best), sep="\n", flush=typed)
        done += len(some)


if __name__ == "__main__":
    main(infer)
