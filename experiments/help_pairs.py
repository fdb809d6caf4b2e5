"""Sentence pairs of LibreOffice's help, cut out of the Debian packages that hold it.

    apt-get install libreoffice-help-en-us libreoffice-help-fr
    python experiments/help_pairs.py fr > help.fr-en.tsv           (FRENCH, one tab, ENGLISH)

Any of its 30 and more languages: de, es, it, ru, ja, ... Licence of the texts: MPL-2.0. Paragraphs
are matched by file and by the ``id`` that both languages share, so the alignment is exact. What is
kept are short sentences, 3 to 25 words on both sides, that are not the same on both. A package need
not be installed: ``dpkg-deb -x libreoffice-help-fr_*.deb FOLDER`` and ``--root FOLDER`` will do.
"""

from terminal import main

import html
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from s2sjax.cli import parse
from s2sjax.errors import UserError

HELP = Path("usr/share/libreoffice/help")
PARAGRAPH = re.compile(r'<(p|h\d) id="([^"]+)"[^>]*>(.*?)</\1>', re.DOTALL)
LENGTHS = range(3, 26)


@dataclass(frozen=True)
class Extract:
    """What was asked for on the command line."""

    language: tyro.conf.Positional[str]  # Source language: its folder's name, such as fr
    target: str = "en-US"  # Target language
    root: Path = Path("/")  # Where the packages are unpacked


def paragraphs(page: Path) -> dict[str, str]:
    """Text of every paragraph of a page, by its id."""
    matches = PARAGRAPH.findall(page.read_text("utf-8"))
    text = {name: html.unescape(re.sub("<.*?>", "", marked)) for _, name, marked in matches}
    return {name: " ".join(words.split()) for name, words in text.items()}


def pairs(root: Path, source: str, target: str) -> list[tuple[str, str]]:
    """Distinct pairs, sorted; raises UserError where a language is not there."""
    folders = [root / HELP / language / "text" for language in (source, target)]
    for language, folder in zip((source, target), folders, strict=True):
        if not folder.is_dir():
            package = f"libreoffice-help-{language.lower()}"
            raise UserError(f"{folder} does not exist: install the Debian package {package}")
    found = set()
    for page in folders[0].rglob("*.html"):
        other = folders[1] / page.relative_to(folders[0])
        if not other.exists():
            continue
        left, right = paragraphs(page), paragraphs(other)
        for name in left.keys() & right.keys():
            pair = left[name], right[name]
            if pair[0] != pair[1] and all(len(text.split()) in LENGTHS for text in pair):
                found.add(pair)
    return sorted(found)


def extract() -> None:
    """Parse, read, print."""
    asked = parse(Extract, __doc__ or "")
    for pair in pairs(asked.root, asked.language, asked.target):
        sys.stdout.buffer.write("\t".join(pair).encode() + b"\n")


if __name__ == "__main__":
    main(extract)
