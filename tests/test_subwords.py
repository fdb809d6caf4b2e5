"""Subwords: learnt and applied as byte-pair encoding defines it, and every text there and back."""

import itertools
import os
import random
import re
import sys
import unicodedata
from collections import Counter

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.data.subwords import ALPHABET, SubwordVocabulary
from s2sjax.data.vocab import SPECIALS
from s2sjax.errors import UserError

TEXTS = ["a group of men", "a group of women are grouping", "No man, no group!", "two men"] * 3
LEARNT = SubwordVocabulary.build(TEXTS, max_size=300)
BYTES = SubwordVocabulary(())

quickly = settings(derandomize=True, max_examples=100)


def cut(text: str) -> list[str]:
    """What GPT-2's expression takes for words, of ASCII letters and single blanks."""
    return [word.replace(" ", "Ġ") for word in re.findall(" ?[a-z]+", " " + text)]


def merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """One merge, applied from left to right."""
    out, i = [], 0
    while i < len(symbols):
        here = tuple(symbols[i : i + 2]) == pair
        out.append("".join(pair) if here else symbols[i])
        i += 2 if here else 1
    return out


def learn(texts: list[str], merges: int, min_count: int) -> list[tuple[str, str]]:
    """Sennrich's loop: merge the most frequent pair; of equals, that of the oldest symbols."""
    words = Counter(word for text in texts for word in cut(text))
    symbols = {word: list(word) for word in words}
    age = {symbol: i for i, symbol in enumerate(sorted(ALPHABET))}
    found = []
    while len(found) < merges:
        counts = Counter()
        for word, n in words.items():
            for pair in itertools.pairwise(symbols[word]):
                counts[pair] += n
        pairs = [pair for pair, n in counts.items() if n >= min_count]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-counts[pair], age[pair[0]], age[pair[1]]))
        age.setdefault("".join(best), len(age))
        found.append(best)
        symbols = {word: merged(parts, best) for word, parts in symbols.items()}
    return found


def draw(seed: int, n: int = 30) -> list[str]:
    """Texts of few letters, so that much is repeated."""
    rng = random.Random(seed)
    return [
        " ".join("".join(rng.choices("abcd", k=rng.randint(1, 6))) for _ in range(5))
        for _ in range(n)
    ]


# --- learning --------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "min_count"), [(0, 1), (1, 2), (2, 5)])
def test_merges_are_learnt_and_applied_as_byte_pair_encoding_defines_it(seed, min_count):
    texts = draw(seed)
    vocab = SubwordVocabulary.build(texts, max_size=300, min_count=min_count)
    assert list(vocab.merges) == learn(texts, len(vocab.merges), min_count)
    assert len(vocab) == 300 or len(learn(texts, 100, min_count)) == len(vocab.merges)
    for text in draw(seed + 100, 10):
        expected = []
        for word in cut(text):
            symbols = list(word)
            for pair in vocab.merges:
                symbols = merged(symbols, pair)
            expected += symbols
        assert vocab.pieces(text) == expected
        assert vocab.encode(text) == [vocab.symbols.index(piece) for piece in expected]


def test_the_same_texts_in_any_order_give_the_same_vocabulary():
    texts, rng = draw(0), random.Random(0)
    first = SubwordVocabulary.build(texts, max_size=320)
    for _ in range(5):
        rng.shuffle(texts)
        again = SubwordVocabulary.build(iter(texts), max_size=320)
        assert (again, hash(again), again.symbols) == (first, hash(first), first.symbols)


def test_the_greatest_size_counts_the_special_symbols_and_the_bytes():
    for size in (260, 261, 270, 280):
        assert len(SubwordVocabulary.build(TEXTS, max_size=size)) == size
    assert len(SubwordVocabulary.build(["ab"], max_size=1_000)) == 260  # no pair occurs twice
    assert len(SubwordVocabulary.build(["ab"], max_size=1_000, min_count=1)) == 262
    assert SubwordVocabulary.build([], max_size=1_000) == BYTES


def test_two_merges_can_make_one_symbol():
    vocab = SubwordVocabulary((("a", "b"), ("ab", "c"), ("b", "c"), ("a", "bc")))
    assert vocab.symbols[260:] == ("ab", "abc", "bc")
    assert len(vocab) == 263
    assert vocab.encode("abc") == [vocab.symbols.index("Ġ"), 261]


# --- there and back --------------------------------------------------------------------------

anything = st.text(st.characters(exclude_categories=["Cs"]))
some = st.text(st.sampled_from("a group men.<>unkeos \n\t\0é雪\u0301\u2028"))


@pytest.mark.parametrize("vocab", [LEARNT, BYTES], ids=["learnt", "bytes"])
@quickly
@given(text=anything | some)
def test_every_text_is_restored_to_the_letter(vocab, text):
    ids = vocab.encode(text)
    assert vocab.decode(ids) == unicodedata.normalize("NFC", text)
    assert vocab.encode(unicodedata.normalize("NFD", text)) == ids  # fault 14
    assert [vocab.symbols[i] for i in ids] == vocab.pieces(text)
    assert all(4 <= i < len(vocab) for i in ids)


def test_without_merges_the_symbols_are_the_bytes_behind_a_blank():
    assert [i - 4 for i in BYTES.encode("é雪\n")] == list(" é雪\n".encode())
    group = LEARNT.symbols.index("Ġgroup")  # so a word at the start is what it is elsewhere
    assert LEARNT.encode("group group") == [group, group]
    assert LEARNT.encode(" group")[-1] == group


def test_no_text_is_read_as_a_special_symbol():
    for symbol in SPECIALS:
        vocab = SubwordVocabulary.build([symbol, f"{symbol[:-1]} {symbol}"] * 50, max_size=300)
        for text in (symbol, f"a{symbol}b", symbol * 3):
            assert min(vocab.encode(text)) >= 4
            assert vocab.decode(vocab.encode(text)) == text
    spelled = SubwordVocabulary(tuple(("<eos>"[:n], "<eos>"[n]) for n in range(1, 5)))
    assert spelled.symbols[2] == spelled.symbols[-1] == "<eos>"
    assert spelled.decode([len(spelled) - 1, len(spelled) - 1, 2, 4]) == "<eos><eos>"


def test_what_is_no_text_is_decoded_all_the_same():
    snow = BYTES.encode("雪")
    assert BYTES.decode(snow[:-1]) == BYTES.decode([*snow[:-1], 2]) == "\ufffd"
    assert BYTES.decode(snow[1:]) == "雪"  # nor need it begin with a blank


def test_symbols_are_shown_so_that_a_blank_an_end_and_a_byte_can_be_seen():
    shown = [LEARNT.show(i) for i in LEARNT.encode("a group\né")]
    assert shown == ["␣a", "␣group", "\\n", "\\xc3", "\\xa9"]
    assert [LEARNT.show(i) for i in range(4)] == ["<pad>", "<bos>", "⏎", "<unk>"]


def test_the_alphabet_is_gpt_2s():
    assert sorted(ALPHABET) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert len(set(ALPHABET)) == 256
    write = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    every = "".join(map(chr, range(0x800))) + "雪\U0001f600"
    written = "".join(piece for piece, _ in write.pre_tokenize_str(every))
    assert written == "".join(ALPHABET[byte] for byte in every.encode())


# --- what can be wrong -----------------------------------------------------------------------


def test_half_a_character_is_refused():
    message = r"^'a\\ud800' cannot be written in UTF-8: surrogates not allowed$"
    with pytest.raises(UserError, match=message):
        LEARNT.encode("a\ud800")
    with pytest.raises(UserError, match=message):
        SubwordVocabulary.build(["b", "a\ud800"], max_size=300)


@pytest.mark.parametrize("merges", [(("ab", "c"),), (("a", "é雪"),), (("a", "b"), ("b", "bc"))])
def test_a_merge_of_what_there_is_not_is_refused(merges):
    with pytest.raises(ValueError, match=r"^the merge of '.*' and '.*' has an unknown part$"):
        SubwordVocabulary(merges)


def test_the_package_is_needed_to_learn_and_to_encode_only(monkeypatch):
    vocab = SubwordVocabulary(LEARNT.merges)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    message = r"^this needs the package tokenizers of the extra `text`: pip install tokenizers"
    with pytest.raises(UserError, match=message):
        vocab.encode("a")
    with pytest.raises(UserError, match=message):
        SubwordVocabulary.build(TEXTS, max_size=300)
    assert vocab.decode(LEARNT.encode("a group")) == "a group"
    assert len(vocab) == len(LEARNT)


@pytest.mark.parametrize(("before", "after"), [(None, "false"), ("true", "true")])
def test_one_thread_is_used_unless_more_are_asked_for(monkeypatch, before, after):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if before is not None:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    SubwordVocabulary(()).encode("a")
    assert os.environ["TOKENIZERS_PARALLELISM"] == after
