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
LEXICON = {"Frau": "Ms", "singt": "sings", UNK: "never"}


@pytest.mark.parametrize(
    ("symbols", "lexicon", "expected"),
    [
        ([UNK, UNK, UNK], LEXICON, ["Ms", "Vogelsang", "sings"]),
        ([UNK, UNK, UNK], None, SOURCE),
        (["Ms", UNK, "sings"], LEXICON, ["Ms", "Vogelsang", "sings"]),
        (["Frau", "singt", UNK], LEXICON, ["Frau", "singt", "sings"]),  # what is known stays
        (["a", UNK, UNK, UNK], {}, ["a", "Vogelsang", "singt", "Frau"]),  # of equals the first
        ([], LEXICON, []),
    ],
)
def test_each_becomes_what_it_looked_at_most_translated_where_possible(symbols, lexicon, expected):
    assert replace_unknown(symbols, ALIGNMENT, SOURCE, UNK, lexicon) == expected


def test_a_source_that_was_cut_is_looked_at_as_far_as_it_was_read():
    assert replace_unknown([UNK] * 3, ALIGNMENT[:, :2], SOURCE, UNK) == [*SOURCE[:2], "Vogelsang"]


def test_from_nothing_nothing_is_put_back():
    assert replace_unknown([UNK, "a"], ALIGNMENT, [], UNK, LEXICON) == [UNK, "a"]


def test_an_answer_longer_than_its_alignment_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        replace_unknown([UNK] * 5, ALIGNMENT, SOURCE, UNK)
