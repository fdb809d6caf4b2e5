"""Vocabularies of every kind: saved, loaded, and damaged."""

import copy
import json

import pytest

from s2sjax.data.dataset import load_vocabulary
from s2sjax.data.subwords import SubwordVocabulary
from s2sjax.data.vocab import BOS, EOS, CharacterVocabulary, Vocabulary
from s2sjax.data.words import Rules, WordVocabulary
from s2sjax.errors import UserError

TEXTS = ["Ein Hund läuft .", "a dog\nruns!", "<eos> 雪 ɑ̃ \x00"]
CHARACTERS = CharacterVocabulary("".join(sorted(set("".join(TEXTS)))))
WORDS = WordVocabulary.build(TEXTS, Rules(lower_case=False, cut="whitespace"))
SUBWORDS = SubwordVocabulary.build(TEXTS, max_size=270, min_count=1)
KINDS: dict[str, Vocabulary] = {
    "characters": CHARACTERS,
    "notebook": CharacterVocabulary(" +0123456789", (EOS,)),
    "Saitoh": CharacterVocabulary(" +0123456789", (BOS,)),
    "Keras": CharacterVocabulary(" +0123456789", ()),
    "words": WORDS,
    "words, default rules": WordVocabulary.build(TEXTS),
    "subwords": SUBWORDS,
    "bytes": SubwordVocabulary(()),
}

every = pytest.mark.parametrize("vocab", KINDS.values(), ids=KINDS.keys())


@every
def test_a_loaded_vocabulary_is_equal_and_gives_equal_ids(vocab):
    loaded = load_vocabulary(json.loads(json.dumps(vocab.to_json())))
    assert (type(loaded), loaded, hash(loaded)) == (type(vocab), vocab, hash(vocab))
    assert loaded.symbols == vocab.symbols
    for name in ("pad_id", "eos_id", "unk_id"):
        assert getattr(loaded, name) == getattr(vocab, name)
    for text in [*TEXTS, "0 + 1"] if vocab.unk_id >= 0 else ["0 + 1"]:
        assert loaded.encode(text) == vocab.encode(text)
        assert loaded.decode(vocab.encode(text)) == vocab.decode(vocab.encode(text))


def test_what_is_saved():
    assert KINDS["notebook"].to_json() == {
        "kind": "characters",
        "characters": " +0123456789",
        "specials": ["<eos>"],
    }
    assert WordVocabulary(("b", "a")).to_json() == {
        "kind": "words",
        "rules": {"lower_case": True, "cut": "punctuation"},
        "words": ["b", "a"],
    }
    merges = (("a", "b"), ("Ġ", "ab"))
    assert SubwordVocabulary(merges).to_json() == {
        "kind": "subwords",
        "merges": [["a", "b"], ["Ġ", "ab"]],
    }


def test_vocabularies_are_equal_where_their_settings_are():
    assert len({*KINDS.values(), *map(load_vocabulary, (v.to_json() for v in KINDS.values()))}) == 8


@pytest.mark.parametrize("kind", [CharacterVocabulary, WordVocabulary])
def test_without_a_common_symbol_there_is_no_vocabulary(kind):
    message = "^no symbol occurs 2 times in training: lower Text.min_count$"
    with pytest.raises(UserError, match=message):
        kind.build(["a b"], min_count=2)


PARTS = "it has no characters, words or subwords"


@pytest.mark.parametrize(
    ("vocab", "damage", "message"),
    [
        (CHARACTERS, {"kind": "letters"}, PARTS),
        (CHARACTERS, {"kind": "words"}, PARTS),
        (CHARACTERS, {"characters": ["a"]}, PARTS),
        (CHARACTERS, {"specials": None}, "None is no list of strings"),
        (CHARACTERS, {"specials": [2]}, "[2] is no list of strings"),
        (CHARACTERS, {"specials": [["<eos>"]]}, "[['<eos>']] is no list of strings"),
        (CHARACTERS, {"characters": "aa", "specials": []}, "'a' is there twice"),
        (WORDS, {"words": "abc"}, "abc is no list of strings"),
        (WORDS, {"words": ["a", 1]}, "['a', 1] is no list of strings"),
        (WORDS, {"words": ["a", "b", "a"]}, "'a' is there twice"),
        (SUBWORDS, {"merges": {}}, PARTS),
        (SUBWORDS, {"merges": [["a"]]}, "not enough values to unpack (expected 2, got 1)"),
        (SUBWORDS, {"merges": ["ab"]}, "ab is no list of strings"),
        (SUBWORDS, {"merges": [["a", 1]]}, "['a', 1] is no list of strings"),
        (SUBWORDS, {"merges": [["a", "bc"]]}, "the merge of 'a' and 'bc' has an unknown part"),
    ],
)
def test_damage_is_named(vocab, damage, message):
    with pytest.raises(UserError) as error:
        load_vocabulary(vocab.to_json() | damage, "vocabulary.json")
    assert str(error.value) == f"vocabulary.json is damaged: {message}"


@every
def test_no_part_can_be_missing(vocab):
    for part in vocab.to_json():
        values = copy.deepcopy(vocab.to_json())
        del values[part]
        with pytest.raises(UserError, match=f"^the vocabulary is damaged: {PARTS}$"):
            load_vocabulary(values)


def test_what_is_no_vocabulary_is_refused():
    for values in (None, 1, "words", [], {}, [1, 2], {"kind": 1}):
        with pytest.raises(UserError, match=f"^the vocabulary is damaged: {PARTS}$"):
            load_vocabulary(values)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"cut": "tabs"}, "rules.cut cannot be 'tabs'; it must be 'punctuation' or 'whitespace'"),
        ({"split": "whitespace"}, "rules has unknown settings: split"),
        (1, "rules must be an object of settings, not 1"),
    ],
)
def test_rules_that_are_none_are_named(rules, message):
    with pytest.raises(UserError) as error:
        load_vocabulary(WORDS.to_json() | {"rules": rules})
    assert str(error.value) == f"the vocabulary is damaged: {message}"
