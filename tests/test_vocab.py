"""Characters: special ids, the commonest of them, there and back, and filled rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.data.vocab import (
    BOS,
    EOS,
    NO_SYMBOL,
    PAD,
    SPECIALS,
    UNK,
    CharacterVocabulary,
    fill,
)
from s2sjax.errors import UserError

CHARACTERS = " +0123456789"
CLEAN = CharacterVocabulary(CHARACTERS)
NOTEBOOK = CharacterVocabulary(CHARACTERS, (EOS,))
SAITOH = CharacterVocabulary(CHARACTERS, (BOS,))
KERAS = CharacterVocabulary(CHARACTERS, ())

every = pytest.mark.parametrize(
    "vocab", [CLEAN, NOTEBOOK, SAITOH, KERAS], ids=["clean", "notebook", "Saitoh", "Keras"]
)


@pytest.mark.parametrize(
    ("vocab", "size", "pad", "bos", "eos", "unk"),
    [
        (CLEAN, 16, 0, 1, 2, 3),
        (NOTEBOOK, 13, None, None, 0, NO_SYMBOL),
        (SAITOH, 13, None, 0, NO_SYMBOL, NO_SYMBOL),
        (KERAS, 12, None, None, NO_SYMBOL, NO_SYMBOL),
    ],
)
def test_published_vocabularies_have_their_sizes_and_special_ids(vocab, size, pad, bos, eos, unk):
    assert len(vocab) == len(vocab.symbols) == size
    assert (vocab.pad_id, vocab.eos_id, vocab.unk_id) == (pad, eos, unk)
    assert vocab.encode(CHARACTERS) == list(range(size - 12, size))
    if bos is None:
        with pytest.raises(ValueError, match="not in tuple"):
            _ = vocab.bos_id
    else:
        assert vocab.bos_id == bos


@every
@settings(derandomize=True, max_examples=50)
@given(text=st.text(CHARACTERS))
def test_decoding_undoes_encoding(vocab, text):
    ids = vocab.encode(text)
    assert [vocab.symbols[i] for i in ids] == vocab.pieces(text) == list(text)
    assert vocab.decode(np.array([*ids, NO_SYMBOL], np.int32)) == vocab.decode(ids) == text
    assert vocab.decode([NO_SYMBOL, *ids]) == text  # it is no symbol's id


def test_decoding_stops_at_the_first_end_symbol_and_shows_no_padding():
    symbols = [BOS, "1", PAD, "2", UNK, BOS, "3", EOS, "4", EOS]
    assert CLEAN.decode(CLEAN.symbols.index(s) for s in symbols) == "12?3"
    assert CLEAN.decode([2, 5]) == CLEAN.decode([]) == ""


def test_an_unknown_character_is_named_once_and_is_unk_or_refused():
    assert CLEAN.encode("1*2") == [CLEAN.encode("1")[0], 3, CLEAN.encode("2")[0]]
    message = r"^'1\*2=\*' has characters outside the vocabulary: '\*='; it holds ' \+0123456789'$"
    for vocab in (CLEAN, NOTEBOOK, SAITOH, KERAS):
        if vocab is not CLEAN:
            with pytest.raises(UserError, match=message):
                vocab.encode("1*2=*")


def test_composed_and_decomposed_text_is_the_same():
    """Fault 14."""
    vocab = CharacterVocabulary.build(["A\u0308", "e\u0301\u0323"])
    assert vocab == CharacterVocabulary.build(["\u00c4", "\u00e9\u0323"])
    assert vocab.encode("A\u0308e\u0301") == vocab.encode("\u00c4\u00e9")
    assert vocab.decode(vocab.encode("A\u0308")) == "\u00c4"


def test_no_text_is_read_as_a_special_symbol():
    spelled = CharacterVocabulary("".join(sorted(set("".join(SPECIALS)))))
    for symbol in SPECIALS:
        assert min(spelled.encode(symbol)) >= 4
        assert spelled.decode(spelled.encode(symbol)) == symbol
        assert set(CLEAN.encode(symbol)) == {3}  # unknown characters, one by one
        assert len(CLEAN.encode(symbol)) == 5


def test_symbols_are_shown_so_that_a_space_and_an_end_can_be_seen():
    assert [NOTEBOOK.show(i) for i in range(4)] == ["⏎", "␣", "+", "0"]
    assert [SAITOH.show(i) for i in range(3)] == ["<bos>", "␣", "+"]
    assert [KERAS.show(i) for i in range(2)] == ["␣", "+"]
    odd = CharacterVocabulary("\n\té雪'\x00", ())
    assert [odd.show(i) for i in range(6)] == ["\\n", "\\t", "é", "雪", "'", "\\x00"]


@pytest.mark.parametrize(
    ("characters", "specials", "message"),
    [
        ("ab", (EOS, "<sos>"), r"^specials must be among \('<pad>', '<bos>', '<eos>', '<unk>'\)$"),
        ("ab", ("a",), r"^specials must be among "),
        ("aba", (EOS,), r"^'a' is there twice$"),
        ("ab", (EOS, PAD, EOS), r"^'<eos>' is there twice$"),
    ],
)
def test_impossible_symbols_are_refused(characters, specials, message):
    with pytest.raises(ValueError, match=message):
        CharacterVocabulary(characters, specials)


# --- the commonest ---------------------------------------------------------------------------


def test_characters_are_in_order_of_frequency_then_of_code_points():
    texts = ["abca", "b\u00e9 \u0301", "ca"]  # a 3, b 2, c 2
    vocab = CharacterVocabulary.build(texts)
    assert vocab == CharacterVocabulary.build(iter(texts[::-1]))
    assert vocab == CharacterVocabulary("abc \u00e9\u0301")
    assert CharacterVocabulary.build(texts, min_count=2) == CharacterVocabulary("abc")
    assert CharacterVocabulary.build(texts, max_size=6) == CharacterVocabulary("ab")


# --- rows ------------------------------------------------------------------------------------


def test_rows_are_filled_with_padding_on_the_right():
    rows = fill([[5, 6, 7], [], [8]], 4, 9)
    assert rows.dtype == np.int32
    assert rows.tolist() == [[5, 6, 7, 9], [9, 9, 9, 9], [8, 9, 9, 9]]
    assert fill([], 4, 0).shape == (0, 4)
    assert fill([[0, 1], [2, NO_SYMBOL]], 2, None).tolist() == [[0, 1], [2, NO_SYMBOL]]


def test_rows_that_do_not_fit_are_refused():
    for pad_id in (0, None):
        with pytest.raises(UserError, match=r"^a row of 3 symbols does not fit the width 2$"):
            fill([[1, 2], [1, 2, 3]], 2, pad_id)
    with pytest.raises(UserError, match=r"^without padding every row must have exactly 2 symbols$"):
        fill([[1, 2], [1]], 2, None)
