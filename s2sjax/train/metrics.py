"""Every definition of accuracy in use, by name.

=============================  ====================================================================
``teacher_forced/all``         next symbol right, gold symbols before it given, end symbol counted
                               (the notebook's "accuracy")
``teacher_forced/content``     the same without the end symbol
``teacher_forced/exact_match`` every symbol of an answer right, gold symbols before each given
``free_running/...``           the same three, the model's own symbols fed back
``.../position_k``             accuracy at the k-th predicted character of an answer
``loss``                       teacher-forced cross-entropy in nats per scored symbol
``epoch_loss``                 mean over an epoch's updates of the batch's loss before each; the
                               last, partial batch weighs as much as a whole one
=============================  ====================================================================

Padding is never scored. A space that justification wrote is a character like any other.

Scores leave the device as `Count`: how many were right, and of how many. Counts add up exactly over
batches (below 2^24), so no accuracy depends on the batch size.
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

EXACT_MATCH = "free_running/exact_match"  # the metric that answers the question


class Count(NamedTuple):
    """A numerator and its denominator."""

    right: Float[Any, "..."]
    of: Float[Any, "..."]


def count(right: Bool[Array, "*n"], scored: Float[Array, "*n"]) -> Count:
    """Count what is right among what is scored (weights 0 or 1)."""
    return Count((right * scored).sum(), scored.sum())


def is_correct_token(
    predicted: Int[Any, "*n time"], target: Int[Any, "*n time"], unk_id: int
) -> Bool[Any, "*n time"]:
    """Which symbols are right: the gold ones. What is unknown is never right."""
    return (predicted == target) & (target != unk_id)


def is_exact_match(
    predicted: Int[Any, "*n time"],
    target: Int[Any, "*n time"],
    scored: Float[Any, "*n time"],
    unk_id: int,
) -> Bool[Any, "*n"]:
    """Which answers are right: every scored symbol is. The one definition of a right answer."""
    return (is_correct_token(predicted, target, unk_id) | (scored == 0)).all(axis=-1)


def scores(
    predicted: Int[Array, "batch time"],
    target: Int[Array, "batch time"],
    scored: Float[Array, "batch time"],
    eos_id: int,
    unk_id: int,
) -> dict[str, Count]:
    """All accuracies of predicted symbols, forced or free-running, against gold ones.

    `scored` is 1 at real symbols of real examples, 0 at padding and filling rows.
    """
    right = is_correct_token(predicted, target, unk_id)
    content = scored * (target != eos_id)
    return {
        "all": count(right, scored),
        "content": count(right, content),
        "exact_match": count(is_exact_match(predicted, target, scored, unk_id), scored.max(axis=1)),
        "position": Count((right * content).sum(axis=0), content.sum(axis=0)),
    }
