"""Unknown symbols of an answer, put back from the source."""

import numpy as np
import pytest

from s2sjax.unknown import replace_unknown

UNK = "<unk>"
SOURCE = ["Frau", "Vogelsang", "singt"]
ALIGNMENT = np.array(
    [
        [0.8, 0.1, 0.1, 0.0, 0.0],
        [0.1, 0.3, 0.1, 0.5, 0.0],  # mostly at the end symbol
        [0.0, 0.1, 0.9, 0.0, 0.0],
        [0.3, 0.3, 0.3, 0.1, 0.0],  # behind the answer
    ]
)


def replaced(symbols, alignment=ALIGNMENT, source=SOURCE):
    return replace_unknown(symbols, [s == UNK for s in symbols], alignment, source)


@pytest.mark.parametrize(
    ("symbols", "expected"),
    [
        ([UNK, UNK, UNK], SOURCE),
        (["Ms", UNK, "sings"], ["Ms", "Vogelsang", "sings"]),
        (["Frau", "singt", UNK], ["Frau", "singt", "singt"]),  # what is known stays
        (["a", UNK, UNK, UNK], ["a", "Vogelsang", "singt", "Frau"]),  # of equals the first
        ([], []),
    ],
)
def test_each_becomes_what_it_looked_at_most(symbols, expected):
    assert replaced(symbols) == expected


def test_an_ordinary_word_that_is_spelt_as_the_unknown_symbol_stays():
    assert replace_unknown([UNK, UNK], [False, True], ALIGNMENT, SOURCE) == [UNK, "Vogelsang"]


def test_a_source_that_was_cut_is_looked_at_as_far_as_it_was_read():
    assert replaced([UNK] * 3, ALIGNMENT[:, :2]) == [*SOURCE[:2], "Vogelsang"]


def test_from_nothing_nothing_is_put_back():
    assert replaced([UNK, "a"], source=[]) == [UNK, "a"]


def test_an_answer_longer_than_its_alignment_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        replaced([UNK] * 5)
