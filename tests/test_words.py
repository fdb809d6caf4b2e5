"""Words: the rules that cut them, the commonest of them, and there and back."""

import dataclasses
import random
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.data.vocab import SPECIALS
from s2sjax.data.words import Rules, WordVocabulary, pattern

PUNCTUATION, BLANKS = Rules(), Rules(cut="whitespace")
EVERY = [Rules(lower, cut) for lower in (True, False) for cut in ("punctuation", "whitespace")]
TEXTS = ["the cat sat .", "the dog , the cat", "A dog sat"]

every = pytest.mark.parametrize("rules", EVERY, ids=str)
quickly = settings(derandomize=True, max_examples=50)
marked = st.sampled_from("aAİΣé!<> \n\t\u0301\u0338\u200dहि雪_0")
texts = st.one_of(st.text(), st.text(marked))


def with_words(*words: str, rules: Rules = PUNCTUATION) -> WordVocabulary:
    return WordVocabulary(words, rules)


# --- rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at_punctuation", "at_blanks"),
    [
        ("It's 3.5", "it ' s 3 . 5", "it's 3.5"),
        ("  a\t b\n", "a b", "a b"),
        ("a\u00a0b\u3000c", "a b c", "a b c"),
        ("Wait...", "wait . . .", "wait..."),
        ("snake_case a1", "snake_case a1", "snake_case a1"),
        ("„Ach!“ sagte ÄNNE", "„ ach ! “ sagte änne", "„ach!“ sagte änne"),
        ("Cafe\u0301", "caf\u00e9", "caf\u00e9"),
        ("t͡s ɑ̃", "t͡s ɑ̃", "t͡s ɑ̃"),
        ("हिन्दी में", "हिन्दी में", "हिन्दी में"),
        ("می\u200cخواهم", "می\u200cخواهم", "می\u200cخواهم"),
        ("雪 10€", "雪 10 €", "雪 10€"),
        ("<unk>", "< unk >", "<unk>"),
        ("&apos;s", "& apos ; s", "&apos;s"),
        ("", "", ""),
        (" \n ", "", ""),
    ],
)
def test_a_text_is_cut_as_stated(text, at_punctuation, at_blanks):
    assert PUNCTUATION.words(text) == at_punctuation.split()
    assert BLANKS.words(text) == at_blanks.split()


@every
@quickly
@given(text=texts)
def test_words_are_the_text_without_its_blanks_in_composed_form(rules, text):
    words = rules.words(text)
    assert "".join(words) == "".join(rules.normalise(text).split())
    assert rules.words(" ".join(words)) == words
    assert all(unicodedata.is_normalized("NFC", word) for word in words)
    composed, decomposed = (unicodedata.normalize(formatter, text) for formatter in ("NFC", "NFD"))
    assert rules.words(decomposed) == rules.words(composed)


@quickly
@given(text=texts)
def test_a_word_is_of_letters_digits_and_marks_or_one_other_character(text):
    def inside(c: str) -> bool:
        return c.isalnum() or c in "_\u200c\u200d" or unicodedata.category(c)[0] == "M"

    words = PUNCTUATION.words(text)
    for word in words:
        assert all(map(inside, word)) or (len(word) == 1 and not inside(word))
    assert [w for part in BLANKS.words(text) for w in PUNCTUATION.words(part)] == words


def test_the_expression_is_the_stated_one():
    assert pattern("whitespace").pattern == r"\S+"
    marks = pattern("punctuation").pattern.partition("]+|")[0].removeprefix(r"[\w\u200c\u200d")
    assert len(marks) == len(set(marks)) > 2000
    assert {unicodedata.category(c) for c in marks} == {"Mn", "Mc", "Me"}


# --- the commonest ---------------------------------------------------------------------------


def test_words_are_in_order_of_frequency_then_of_code_points():
    vocab = WordVocabulary.build(TEXTS)
    assert vocab.words == ("the", "cat", "dog", "sat", ",", ".", "a")
    assert vocab.symbols == (*SPECIALS, *vocab.words)
    assert vocab.encode("the a") == [4, 10]
    for size in (5, 6, 10, 11, 12):  # the special symbols are counted
        cut = WordVocabulary.build(TEXTS, max_size=size)
        assert (len(cut), cut.words) == (min(size, 11), vocab.words[: size - 4])


@pytest.mark.parametrize("seed", range(3))
def test_frequency_is_counted_over_all_texts(seed):
    rng = random.Random(seed)
    rows = [rng.choices("abcdefg!,", k=rng.randint(1, 6)) for _ in range(seed + 1)]
    counts = Counter(word for row in rows for word in row)
    expected = sorted(counts, key=lambda word: (-counts[word], word))
    assert WordVocabulary.build([" ".join(row) for row in rows[::-1]]).words == tuple(expected)
    for least in range(1, max(counts.values()) + 1):
        cut = WordVocabulary.build((" ".join(row) for row in rows), min_count=least)
        assert cut.words == tuple(word for word in expected if counts[word] >= least)


# --- there and back --------------------------------------------------------------------------


@every
@quickly
@given(text=texts, others=st.lists(texts, max_size=3))
def test_decoding_undoes_encoding_up_to_blanks(rules, text, others):
    vocab = WordVocabulary.build([*others, text, "x"], rules)
    ids = vocab.encode(text)
    assert [vocab.symbols[i] for i in ids] == vocab.pieces(text) == rules.words(text)
    assert vocab.decode(ids) == " ".join(rules.words(text))
    assert vocab.encode(vocab.decode(ids)) == ids
    assert all(i >= 4 for i in ids)


def test_an_unknown_word_is_unk():
    vocab = with_words("a", "b")
    assert vocab.encode("a Zebra b, zebra") == [4, 3, 5, 3, 3]
    assert vocab.decode([4, 3, 5]) == "a <unk> b"


@every
@pytest.mark.parametrize("symbol", SPECIALS)
def test_no_text_is_read_as_a_special_symbol(rules, symbol):
    text = f"a {symbol} b{symbol}c"
    vocab = WordVocabulary.build([text], rules)
    assert min(vocab.encode(text)) >= 4
    assert vocab.decode(vocab.encode(text)) == " ".join(rules.words(text))
    assert set(with_words("a", rules=rules).encode(symbol)) == {3}


def test_the_special_ids_are_0_1_2_3():
    vocab = with_words("<eos>", rules=BLANKS)
    assert (vocab.pad_id, vocab.bos_id, vocab.eos_id, vocab.unk_id) == (0, 1, 2, 3)
    assert vocab.specials == SPECIALS
    assert vocab.encode("<eos>") == [4]
    assert [vocab.show(i) for i in (2, 3, 4)] == ["⏎", "<unk>", "<eos>"]


def test_vocabularies_cannot_be_changed_and_no_word_can_stand_twice():
    with pytest.raises(dataclasses.FrozenInstanceError):
        with_words("a").words = ("b",)
    with pytest.raises(ValueError, match=r"^'a' is there twice$"):
        with_words("b", "a", "c", "a")
