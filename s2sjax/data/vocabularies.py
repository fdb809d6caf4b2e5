"""Vocabularies of any kind, as they are saved with a run."""

from typing import Any

from s2sjax import serial
from s2sjax.data.subwords import SubwordVocabulary
from s2sjax.data.vocab import CharacterVocabulary, Vocabulary
from s2sjax.data.words import Rules, WordVocabulary
from s2sjax.errors import UserError


def from_json(values: Any, where: str = "the vocabulary") -> Vocabulary:
    """The vocabulary that `Vocabulary.to_json` gave: an equal one, with equal ids.

    Raises UserError for values that no vocabulary gives; `where` says where they come from.
    """
    try:
        match values:
            case {"kind": "characters", "characters": str(text), "specials": list(symbols), **rest}:
                if not rest and _strings(symbols):
                    return CharacterVocabulary(text, tuple(symbols))
            case {"kind": "words", "words": list(words), "rules": rules, **rest}:
                if not rest and _strings(words):
                    rules = serial.from_json(Rules, rules, f"{where} is damaged: rules")
                    return WordVocabulary(tuple(words), rules)
            case {"kind": "subwords", "merges": list(merges), **rest}:
                if not rest and all(_strings(m) and len(m) == 2 for m in merges):
                    return SubwordVocabulary(tuple((left, right) for left, right in merges))
    except ValueError as error:
        raise UserError(f"{where} is damaged: {error}") from error
    raise UserError(f"{where} is damaged: it has not the parts of characters, words or subwords")


def _strings(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
