"""Vocabularies of any kind, as they are saved with a run."""

from typing import Any

from s2sjax import serial
from s2sjax.errors import UserError
from s2sjax.subwords import SubwordVocabulary
from s2sjax.vocab import CharacterVocabulary, Vocabulary
from s2sjax.words import Rules, WordVocabulary


def from_json(values: Any, where: str = "the vocabulary") -> Vocabulary:
    """The vocabulary that `Vocabulary.to_json` gave: an equal one, with equal ids.

    Raises:
        UserError: no vocabulary gives such values; `where` says where they come from.
    """
    try:
        match values:
            case {"kind": "characters", "characters": str(text), "specials": list(names), **rest}:
                if not rest:
                    return CharacterVocabulary(text, _strings(names))
            case {"kind": "words", "words": list(words), "rules": rules, **rest}:
                if not rest:
                    made = serial.from_json(Rules, rules, f"{where} is damaged: rules")
                    return WordVocabulary(_strings(words), made)
            case {"kind": "subwords", "merges": list(merges), **rest}:
                if not rest:
                    return SubwordVocabulary(tuple(_pair(merge) for merge in merges))
    except ValueError as error:
        raise UserError(f"{where} is damaged: {error}") from error
    raise UserError(f"{where} is damaged: it has not the parts of characters, words or subwords")


def _strings(values: list[Any]) -> tuple[str, ...]:
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is no symbol")
    return tuple(values)


def _pair(merge: Any) -> tuple[str, str]:
    match merge:
        case [str(left), str(right)]:
            return left, right
    raise ValueError(f"{merge!r} is no pair of symbols")
