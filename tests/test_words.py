"""Words: the rules that cut them, the commonest of them, and there and back."""

import dataclasses
import random
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.errors import UserError
from s2sjax.vocab import NO_SYMBOL, SPECIALS, UNK
from s2sjax.words import Rules, WordVocabulary, pattern

PUNCTUATION, BLANKS = Rules(), Rules(cut="blanks")
EVERY = [Rules(lower, cut) for lower in (True, False) for cut in ("punctuation", "blanks")]
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


def test_capitals_are_kept_where_they_are_to_be():
    assert Rules(lower_case=False).words("Der Hund!") == ["Der", "Hund", "!"]
    assert Rules().words("Der Hund!") == ["der", "hund", "!"]


@every
@quickly
@given(text=texts)
def test_nothing_but_blanks_is_thrown_away(rules, text):
    assert "".join(rules.words(text)) == "".join(rules.normalise(text).split())


@every
@quickly
@given(text=texts)
def test_words_joined_by_blanks_have_the_same_words(rules, text):
    words = rules.words(text)
    assert rules.words(" ".join(words)) == words


@every
@quickly
@given(text=texts)
def test_composed_and_decomposed_text_have_the_same_words(rules, text):
    composed = unicodedata.normalize("NFC", text)
    assert rules.words(unicodedata.normalize("NFD", text)) == rules.words(composed)
    assert all(unicodedata.is_normalized("NFC", word) for word in rules.words(text))


@quickly
@given(text=texts)
def test_punctuation_cuts_what_blanks_have_cut(text):
    assert [w for part in BLANKS.words(text) for w in PUNCTUATION.words(part)] == (
        PUNCTUATION.words(text)
    )


@quickly
@given(text=texts)
def test_a_word_is_of_letters_digits_and_marks_or_one_other_character(text):
    def inside(c: str) -> bool:
        return c.isalnum() or c in "_\u200c\u200d" or unicodedata.category(c)[0] == "M"

    for word in PUNCTUATION.words(text):
        assert all(map(inside, word)) or (len(word) == 1 and not inside(word))


def test_the_expression_is_the_stated_one():
    assert pattern("blanks").pattern == r"\S+"
    marks = pattern("punctuation").pattern.partition("]+|")[0].removeprefix(r"[\w\u200c\u200d")
    assert len(marks) == len(set(marks)) > 2000
    assert {unicodedata.category(c) for c in marks} == {"Mn", "Mc", "Me"}


# --- the commonest ---------------------------------------------------------------------------


def test_words_are_in_order_of_frequency_then_of_code_points():
    vocab = WordVocabulary.build(TEXTS)
    assert vocab.words == ("the", "cat", "dog", "sat", ",", ".", "a")
    assert vocab.symbols == (*SPECIALS, *vocab.words)
    assert len(vocab) == 11
    assert vocab.encode("the a") == [4, 10]


@pytest.mark.parametrize("seed", range(10))
def test_frequency_is_counted_over_all_texts(seed):
    rng = random.Random(seed)
    rows = [rng.choices("abcdefg!,", k=rng.randint(1, 6)) for _ in range(seed + 1)]
    counts = Counter(word for row in rows for word in row)
    expected = sorted(counts, key=lambda word: (-counts[word], word))
    vocab = WordVocabulary.build([" ".join(row) for row in rows])
    assert vocab.words == tuple(expected)
    for least in range(1, max(counts.values()) + 1):
        cut = WordVocabulary.build((" ".join(row) for row in rows), min_count=least)
        assert cut.words == tuple(word for word in expected if counts[word] >= least)


def test_the_order_of_the_texts_does_not_matter():
    rng, texts = random.Random(0), [*TEXTS, "zebra", "b a", "ä z"]
    for _ in range(10):
        rng.shuffle(texts)
        assert WordVocabulary.build(texts) == WordVocabulary.build(sorted(texts))


@pytest.mark.parametrize("size", [5, 6, 10, 11, 12])
def test_the_greatest_size_counts_the_special_symbols(size):
    vocab = WordVocabulary.build(TEXTS, max_size=size)
    assert len(vocab) == min(size, 11)
    assert vocab.words == WordVocabulary.build(TEXTS).words[: size - 4]


@pytest.mark.parametrize(
    ("texts", "limits", "message"),
    [
        (TEXTS, {"min_count": 0}, "min_count must be at least 1, not 0"),
        (TEXTS, {"max_size": 4}, "max_size must be at least 5 (four are special), not 4"),
        (TEXTS, {"min_count": 4}, "no word occurs 4 times: lower min_count"),
        ([], {}, "there are no words to make a vocabulary of: the texts are empty"),
        (["", " "], {}, "there are no words to make a vocabulary of: the texts are empty"),
    ],
)
def test_a_vocabulary_that_cannot_be_built_is_refused(texts, limits, message):
    with pytest.raises(UserError) as error:
        WordVocabulary.build(texts, **limits)
    assert str(error.value) == message


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
    assert not vocab.unknown(text)
    assert all(i >= 4 for i in ids)


def test_cut_at_blanks_with_its_letter_case_a_text_is_restored():
    rules = Rules(lower_case=False, cut="blanks")
    text = "Two men, it's said (3.5 m) &amp; so on ..."
    vocab = WordVocabulary.build([text], rules)
    assert vocab.decode(vocab.encode(text)) == text
    assert vocab.decode(vocab.encode(f"  {text.replace(' ', '  ')}\n")) == text


def test_an_unknown_word_is_unk_and_is_named_once():
    vocab = with_words("a", "b")
    assert vocab.encode("a Zebra b, zebra") == [4, 3, 5, 3, 3]
    assert vocab.decode([4, 3, 5]) == "a <unk> b"
    assert vocab.unknown("a Zebra b, zebra") == ["zebra", ","]
    assert vocab.unknown("b a") == []


def test_an_unknown_word_can_be_copied_from_the_source():
    source, vocab = with_words("ein").pieces("Ein Zebra"), with_words("a", "!")
    spelled = vocab.spell([4, 3, 5, 2, 4])
    assert spelled == ["a", UNK, "!"]
    assert vocab.join(source[1] if symbol == UNK else symbol for symbol in spelled) == "a zebra !"


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


def test_decoding_stops_at_the_first_end_symbol_and_shows_no_padding():
    vocab = with_words("a", "b", "c")
    assert vocab.decode([1, 4, 0, 5, NO_SYMBOL, 1, 6, 2, 4, 2]) == "a b c"
    assert vocab.decode([2, 4]) == vocab.decode([]) == ""


def test_equal_vocabularies_are_one_key():
    assert len({with_words("a"), with_words("a"), with_words("a", rules=BLANKS)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        with_words("a").words = ("b",)


def test_no_word_can_stand_twice():
    with pytest.raises(ValueError, match=r"^the word 'a' stands twice$"):
        with_words("b", "a", "c", "a")
