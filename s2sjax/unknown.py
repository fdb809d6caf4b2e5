"""Unknown words of an answer, put back from the source.

Luong et al. (2015), "Addressing the rare word problem in neural machine translation"; Jean et al.
(2015), "On using very large target vocabulary for neural machine translation".
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def replace_unknown(
    symbols: Sequence[str],
    unknown: Sequence[bool],
    alignment: Float[np.ndarray, "time source_time"],
    source: Sequence[str],
) -> list[str]:
    """An answer with every unknown symbol replaced, by what the decoder looked at most.

    That is a name or a number, often. From an empty source nothing can be put back.

    Args:
        symbols: the answer, without its end symbol.
        unknown: which of them are unknown; an ordinary word may be spelt as these are.
        alignment: a row for each, and maybe more; how much weight each source symbol had.
        source: the question's own symbols, in the order in which the encoder reads them; columns
            behind them, such as the end symbol's and padding's, are not looked at.
    """
    if not source:
        return list(symbols)
    most = alignment[: len(symbols), : len(source)].argmax(axis=1)
    return [
        source[i] if replaced else symbol
        for symbol, replaced, i in zip(symbols, unknown, most, strict=True)
    ]
