"""Vocabularies of every kind: saved, loaded, and damaged."""

import copy
import json

import pytest

from s2sjax.errors import UserError
from s2sjax.subwords import SubwordVocabulary
from s2sjax.vocab import BOS, EOS, CharacterVocabulary, Vocabulary
from s2sjax.vocabularies import from_json
from s2sjax.words import Rules, WordVocabulary

TEXTS = ["Ein Hund läuft .", "a dog\nruns!", "<eos> 雪 ɑ̃ \x00"]
CHARACTERS = CharacterVocabulary("".join(sorted(set("".join(TEXTS)))))
WORDS = WordVocabulary.build(TEXTS, Rules(lower_case=False, cut="blanks"))
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
    loaded = from_json(json.loads(json.dumps(vocab.to_json())))
    assert type(loaded) is type(vocab)
    assert loaded == vocab
    assert hash(loaded) == hash(vocab)
    assert loaded.symbols == vocab.symbols
    assert (loaded.pad_id, loaded.eos_id, loaded.unk_id) == (
        vocab.pad_id,
        vocab.eos_id,
        vocab.unk_id,
    )
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


def test_kinds_are_told_apart_by_what_a_vocabulary_says():
    values = [vocab.to_json() for vocab in KINDS.values()]
    assert [from_json(saved) for saved in values] == list(KINDS.values())
    assert len(set(KINDS.values())) == len(KINDS)


PARTS = "it has not the parts of characters, words or subwords"


@pytest.mark.parametrize(
    ("vocab", "damage", "message"),
    [
        (CHARACTERS, {"kind": "letters"}, PARTS),
        (CHARACTERS, {"kind": "words"}, PARTS),
        (CHARACTERS, {"characters": ["a"]}, PARTS),
        (CHARACTERS, {"specials": None}, PARTS),
        (CHARACTERS, {"more": 1}, PARTS),
        (CHARACTERS, {"specials": [2]}, "2 is no symbol"),
        (CHARACTERS, {"specials": [["<eos>"]]}, "['<eos>'] is no symbol"),
        (
            CHARACTERS,
            {"specials": ["<sos>"]},
            "specials must be among ('<pad>', '<bos>', '<eos>', '<unk>')",
        ),
        (
            CHARACTERS,
            {"characters": "aa", "specials": []},
            "a symbol stands twice in ('a', 'a')",
        ),
        (WORDS, {"words": "abc"}, PARTS),
        (WORDS, {"words": ["a", 1]}, "1 is no symbol"),
        (WORDS, {"words": ["a", "b", "a"]}, "the word 'a' stands twice"),
        (WORDS, {"more": 1}, PARTS),
        (SUBWORDS, {"merges": {}}, PARTS),
        (SUBWORDS, {"merges": [["a", "b", "c"]]}, "['a', 'b', 'c'] is no pair of symbols"),
        (SUBWORDS, {"merges": ["ab"]}, "'ab' is no pair of symbols"),
        (SUBWORDS, {"merges": [["a", 1]]}, "['a', 1] is no pair of symbols"),
        (SUBWORDS, {"merges": [["a", "bc"]]}, "the merge of 'a' and 'bc' has an unknown part"),
        (SUBWORDS, {"more": 1}, PARTS),
    ],
)
def test_damage_is_named(vocab, damage, message):
    with pytest.raises(UserError) as error:
        from_json(vocab.to_json() | damage, "vocabulary.json")
    assert str(error.value) == f"vocabulary.json is damaged: {message}"


@every
def test_no_part_can_be_missing(vocab):
    for part in vocab.to_json():
        values = copy.deepcopy(vocab.to_json())
        del values[part]
        with pytest.raises(UserError, match=f"^the vocabulary is damaged: {PARTS}$"):
            from_json(values)


@pytest.mark.parametrize("values", [None, 1, "words", [], {}, [1, 2], {"kind": 1}])
def test_what_is_no_vocabulary_is_refused(values):
    with pytest.raises(UserError, match=f"^the vocabulary is damaged: {PARTS}$"):
        from_json(values)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"cut": "tabs"}, "rules.cut cannot be 'tabs'; it must be 'punctuation' or 'blanks'"),
        ({"split": "blanks"}, "rules has unknown settings: split"),
        (1, "rules must be an object of settings, not 1"),
    ],
)
def test_rules_that_are_none_are_named(rules, message):
    with pytest.raises(UserError) as error:
        from_json(WORDS.to_json() | {"rules": rules})
    assert str(error.value) == f"the vocabulary is damaged: {message}"
