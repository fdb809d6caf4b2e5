"""Vocabularies: special ids, there and back, filled rows, and the mask that tells padding."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.errors import UserError
from s2sjax.vocab import (
    BOS,
    EOS,
    NO_SYMBOL,
    PAD,
    SPECIALS,
    UNK,
    CharacterVocabulary,
    fill,
    padding_mask,
)

CHARACTERS = " +0123456789"
CLEAN = CharacterVocabulary(CHARACTERS)
NOTEBOOK = CharacterVocabulary(CHARACTERS, (EOS,))
SAITOH = CharacterVocabulary(CHARACTERS, (BOS,))
KERAS = CharacterVocabulary(CHARACTERS, ())

every = pytest.mark.parametrize(
    "vocab", [CLEAN, NOTEBOOK, SAITOH, KERAS], ids=["clean", "notebook", "Saitoh", "Keras"]
)


def test_the_special_ids_are_0_1_2_3():
    assert SPECIALS == ("<pad>", "<bos>", "<eos>", "<unk>")
    assert (CLEAN.pad_id, CLEAN.bos_id, CLEAN.eos_id, CLEAN.unk_id) == (0, 1, 2, 3)
    assert CLEAN.encode("x") == [3]
    assert CLEAN.encode(CHARACTERS) == list(range(4, 16))
    assert len(CLEAN) == 16


def test_the_notebook_has_13_symbols_and_neither_padding_nor_a_begin_symbol():
    assert len(NOTEBOOK) == len(NOTEBOOK.symbols) == 13
    assert (NOTEBOOK.pad_id, NOTEBOOK.eos_id) == (None, 0)
    with pytest.raises(KeyError, match="<bos>"):
        _ = NOTEBOOK.bos_id
    assert NOTEBOOK.encode(CHARACTERS) == list(range(1, 13))


def test_saitoh_has_13_symbols_and_no_special_but_the_begin_symbol():
    assert len(SAITOH) == 13
    assert (SAITOH.pad_id, SAITOH.bos_id, SAITOH.eos_id) == (None, 0, NO_SYMBOL)
    assert SAITOH.encode(CHARACTERS) == list(range(1, 13))


def test_keras_has_12_symbols_and_no_special():
    assert len(KERAS) == 12
    assert (KERAS.pad_id, KERAS.eos_id) == (None, NO_SYMBOL)
    with pytest.raises(KeyError, match="<bos>"):
        _ = KERAS.bos_id
    assert KERAS.encode(CHARACTERS) == list(range(12))


@every
def test_no_symbol_is_no_symbols_id_and_is_left_out_of_text(vocab):
    assert NO_SYMBOL not in range(len(vocab))
    assert vocab.decode([NO_SYMBOL, *vocab.encode("1 2"), NO_SYMBOL]) == "1 2"


@every
def test_an_unk_id_that_no_symbol_has_is_no_symbol(vocab):
    assert vocab.unk_id == (3 if vocab is CLEAN else NO_SYMBOL)


@every
@settings(deadline=None, derandomize=True, max_examples=50)
@given(text=st.text(CHARACTERS))
def test_decoding_undoes_encoding(vocab, text):
    ids = vocab.encode(text)
    assert [vocab.symbols[i] for i in ids] == vocab.pieces(text) == list(text)
    assert vocab.decode(ids) == vocab.decode(np.array(ids, np.int32)) == text


def test_decoding_stops_at_the_first_end_symbol_and_shows_no_padding():
    symbols = [BOS, "1", PAD, "2", UNK, BOS, "3", EOS, "4", EOS]
    assert CLEAN.decode(CLEAN.symbols.index(s) for s in symbols) == "12?3"
    assert CLEAN.decode([2, 5]) == ""


@every
def test_unknown_characters_are_found_each_once(vocab):
    assert vocab.unknown("1*2=a*") == "*=a"
    assert vocab.unknown(CHARACTERS) == ""


def test_an_unknown_character_is_unk_where_there_is_one():
    assert CLEAN.encode("1*2") == [CLEAN.encode("1")[0], 3, CLEAN.encode("2")[0]]
    assert CLEAN.decode(CLEAN.encode("1*2")) == "1?2"


def test_symbols_are_spelled_one_for_each_id_up_to_the_end():
    assert CLEAN.spell([1, 5, 0, 3, 2, 5]) == [BOS, "+", PAD, UNK]
    assert CLEAN.spell(np.array([5, NO_SYMBOL, 5])) == ["+"]
    assert KERAS.spell([2, 3, NO_SYMBOL, 3]) == ["0", "1"]
    assert CLEAN.spell([]) == []


def test_symbols_can_be_replaced_before_they_are_joined():
    spelled = CLEAN.spell(CLEAN.encode("1*2"))
    assert spelled == ["1", UNK, "2"]
    assert CLEAN.join(spelled) == "1?2"
    assert CLEAN.join("*" if symbol == UNK else symbol for symbol in spelled) == "1*2"


def test_no_text_is_read_as_a_special_symbol():
    spelled = CharacterVocabulary("".join(sorted(set("".join(SPECIALS)))))
    for symbol in SPECIALS:
        assert min(spelled.encode(symbol)) >= 4
        assert spelled.decode(spelled.encode(symbol)) == symbol
        assert set(CLEAN.encode(symbol)) == {3}  # unknown characters, one by one
        assert len(CLEAN.encode(symbol)) == 5


def test_an_unknown_character_is_refused_where_there_is_no_unk():
    message = r"^'1\*2=' has characters outside the vocabulary: '\*='; it holds ' \+0123456789'$"
    for vocab in (NOTEBOOK, SAITOH, KERAS):
        with pytest.raises(UserError, match=message):
            vocab.encode("1*2=")


def test_symbols_are_shown_so_that_a_space_and_an_end_can_be_seen():
    assert [NOTEBOOK.show(i) for i in range(4)] == ["⏎", "␣", "+", "0"]
    assert [SAITOH.show(i) for i in range(3)] == ["<bos>", "␣", "+"]
    assert [KERAS.show(i) for i in range(2)] == ["␣", "+"]
    odd = CharacterVocabulary("\n\té雪'\x00", ())
    assert [odd.show(i) for i in range(6)] == ["\\n", "\\t", "é", "雪", "'", "\\x00"]


@pytest.mark.parametrize("specials", [("<sos>",), (EOS, "<sos>"), ("a",)])
def test_impossible_specials_are_refused(specials):
    message = r"^specials must be among \('<pad>', '<bos>', '<eos>', '<unk>'\)$"
    with pytest.raises(ValueError, match=message):
        CharacterVocabulary("ab", specials)


@pytest.mark.parametrize(("characters", "specials"), [("aba", (EOS,)), ("ab", (EOS, PAD, EOS))])
def test_no_symbol_can_stand_twice(characters, specials):
    with pytest.raises(ValueError, match=r"^a symbol stands twice in \('<eos>', .*\)$"):
        CharacterVocabulary(characters, specials)


def test_equal_vocabularies_are_one_key():
    assert len({CLEAN, NOTEBOOK, SAITOH, KERAS, CharacterVocabulary(CHARACTERS)}) == 4


# --- rows ------------------------------------------------------------------------------------


def test_rows_are_filled_with_padding_on_the_right():
    rows = fill([[5, 6, 7], [], [8]], 4, 9)
    assert rows.dtype == np.int32
    assert rows.tolist() == [[5, 6, 7, 9], [9, 9, 9, 9], [8, 9, 9, 9]]
    assert fill([], 4, 0).shape == (0, 4)


def test_full_rows_need_no_padding():
    assert fill([[0, 1], [2, 3]], 2, None).tolist() == [[0, 1], [2, 3]]
    assert fill([[0, NO_SYMBOL]], 2, None).tolist() == [[0, NO_SYMBOL]]  # masked, not missing


@pytest.mark.parametrize("pad_id", [0, None])
def test_a_row_that_is_too_long_is_refused(pad_id):
    with pytest.raises(UserError, match=r"^a row of 3 symbols does not fit the width 2$"):
        fill([[1, 2], [1, 2, 3]], 2, pad_id)


def test_a_row_that_is_too_short_is_refused_where_there_is_no_padding():
    with pytest.raises(UserError, match=r"^without padding every row must have exactly 2 symbols$"):
        fill([[1, 2], [1]], 2, None)


def test_the_mask_is_true_where_a_symbol_is_real():
    ids = jnp.array([[5, 0, 6], [0, 0, 0]], jnp.int32)
    assert padding_mask(ids, 0).tolist() == [[True, False, True], [False, False, False]]
    assert padding_mask(ids, 5).tolist() == [[False, True, True], [True, True, True]]
    ids = jnp.array([[NO_SYMBOL, 0, 1]], jnp.int32)
    assert padding_mask(ids, NO_SYMBOL).tolist() == [[False, True, True]]


def test_there_is_no_mask_where_nothing_can_be_padding():
    assert padding_mask(jnp.zeros((2, 3), jnp.int32), None) is None
