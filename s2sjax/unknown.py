"""Unknown words of an answer, put back from the source.

Luong et al. (2015), "Addressing the rare word problem in neural machine translation"; Jean et al.
(2015), "On using very large target vocabulary for neural machine translation".
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float


def replace_unknown(
    symbols: Sequence[str],
    alignment: Float[np.ndarray, "time source_time"],
    source: Sequence[str],
    unk: str,
    lexicon: Mapping[str, str] | None = None,
) -> list[str]:
    """An answer with every unknown symbol replaced, by what the decoder looked at most.

    It becomes the translation of that source symbol, or where the lexicon has none the source
    symbol itself: a name or a number, often. From an empty source nothing can be put back.

    Args:
        symbols: the answer, without its end symbol.
        alignment: a row for each, and maybe more; how much weight each source symbol had.
        source: the question's own symbols, in the order in which the encoder reads them; columns
            behind them, such as the end symbol's and padding's, are not looked at.
        unk: the unknown symbol.
        lexicon: translations of single symbols.
    """
    if not source:
        return list(symbols)
    lexicon = lexicon or {}
    most = alignment[: len(symbols), : len(source)].argmax(axis=1)
    attended = (source[i] for i in most)
    return [
        lexicon.get(word, word) if symbol == unk else symbol
        for symbol, word in zip(symbols, attended, strict=True)
    ]
