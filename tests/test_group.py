"""Arms of one program: what they may differ in, and what every replica of every program shares."""

from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest

from s2sjax.ablation import Ablation
from s2sjax.config import Model, Optimiser, Run, Text, Training
from s2sjax.errors import UserError
from s2sjax.fit import make_programs
from s2sjax.group import Group, formatter, make_trainer, program, seed_keys, updates_per_epoch
from s2sjax.serial import differences
from s2sjax.taskconfig import Addition, Toy

BASE = Run(
    Addition(digits=2, train=50, dev=20, test=20),
    Text(justify="right"),
    Model(hidden_size=4),
    Optimiser(warmup=3),
    Training(epochs=2, batch_size=16),
)
TOY = replace(BASE, task=Toy(symbols=4, max_length=4, train=50, dev=20, test=20), text=Text())
LOOKING = Model(hidden_size=4, attention="dot", embed_dim=4, encoder_layers=2)
ATTENDING = replace(BASE, model=LOOKING)

# Another value of every setting, and whether it changes but data or a traced number.
ALIKE, APART = True, False
CHANGES: Mapping[tuple[Run, str], Mapping[str, tuple[Any, bool]]] = {
    (BASE, "task"): {
        "digits": (3, APART),
        "operands": ("any_length", ALIKE),
        "terms": (3, APART),
        "operator": ("-", ALIKE),
        "train": (51, APART),
        "dev": (21, APART),
        "test": (21, APART),
        "splits": ("independent", ALIKE),
        "sha256": ("0" * 64, ALIKE),
    },
    (TOY, "task"): {
        "kind": ("sort", ALIKE),
        "symbols": (5, APART),
        "min_length": (2, ALIKE),
        "max_length": (5, APART),
        "longer": (2, APART),
        "train": (51, APART),
        "dev": (21, APART),
        "test": (21, APART),
    },
    (BASE, "text"): {
        "source_order": ("reversed", ALIKE),
        "target_order": ("reversed", ALIKE),
        "justify": ("left", ALIKE),
        "justify_when": ("after", ALIKE),
        "mask_spaces": (True, APART),
        "lag": (1, APART),
        "source_eos": (False, APART),
        "target_eos": (False, APART),
        "start": ("first_target", APART),
    },
    (BASE, "model"): {
        "cell": ("rnn", APART),
        "hidden_size": (5, APART),
        "encoder_layers": (2, APART),
        "decoder_layers": (2, APART),
        "decoder": ("repeat", APART),
        "peeky": (True, APART),
        "hand_over": ("learned", APART),
        "directions": (2, APART),
        "attention": ("dot", APART),
        "dropout": (0.1, APART),
        "recurrent_dropout": (0.1, APART),
        "embed_dim": (3, APART),
        "init": ("torch", APART),
        "precision": ("bfloat16", APART),
        "unroll": (2, APART),
    },
    (ATTENDING, "model"): {
        "attend": ("before", APART),
        "context_dropout": (0.1, APART),
        "residual": (True, APART),
        "tied_output": (True, APART),
    },
    (BASE, "optim"): {
        "learning_rate": (0.1, ALIKE),
        "epsilon": (1e-8, APART),
        "clip": (1.0, APART),
        "schedule": ("cosine", APART),
        "warmup": (4, APART),
    },
    (BASE, "train"): {
        "epochs": (3, APART),
        "batch_size": (17, APART),
        "eval_every": (1, APART),
        "checkpoint_every": (1, APART),
        "show_every": (1, APART),
        "shown": (1, APART),
        "teacher_forcing": (0.5, APART),
        "teacher_forcing_end": (0.5, APART),
        "label_smoothing": (0.1, APART),
        "patience": (1, APART),
    },
}
MORE = [
    *(
        (replace(ATTENDING, model=replace(LOOKING, **{rate: 0.2})), "model", rate, 0.1, ALIKE)
        for rate in LOOKING.rates
    ),
    (BASE, "text", "source_order", "doubled", APART),
    (BASE, "text", "source_order", "digits_reversed", ALIKE),
    (BASE, "text", "source_order", "operands_swapped", ALIKE),
    (BASE, "text", "justify", None, APART),
    (BASE, "task", "operands", "short_first", ALIKE),  # of two digits none is short
    (
        replace(BASE, task=Addition(train=50, dev=20, test=20)),
        "task",
        "operands",
        "short_first",
        APART,
    ),
]
EVERY = [
    (run, part, name, value, alike)
    for (run, part), changes in CHANGES.items()
    for name, (value, alike) in changes.items()
] + MORE


def changed(run: Run, part: str, name: str, value: Any) -> Run:
    settings = {part: replace(getattr(run, part), **{name: value})}
    if value == "repeat":  # goes with
        settings["text"] = replace(run.text, start="nothing")
    return replace(run, **settings)


def test_every_setting_is_known_to_change_the_program_or_not():
    known: dict[type, set[str]] = {Addition: {"file"}}  # it is read: see test_questions
    for (run, part), changes in CHANGES.items():
        known.setdefault(type(getattr(run, part)), set()).update(changes)
    for kind, names in known.items():
        assert names == {f.name for f in fields(kind)}
    assert {part for _, part in CHANGES} == {f.name for f in fields(Run)}


@pytest.mark.parametrize(
    ("run", "part", "name", "value", "alike"), EVERY, ids=[f"{e[1]}.{e[2]} {e[3]}" for e in EVERY]
)
def test_arms_share_a_program_where_only_data_or_a_traced_number_differs(
    run, part, name, value, alike
):
    other = changed(run, part, name, value)
    arms = {"base": run, "other": other}
    groups = Ablation(arms, 2, 0).groups
    assert [list(group.arms) for group in groups] == (
        [["base", "other"]] if alike else [["base"], ["other"]]
    )
    # What `program` tells is what decides: the static half of the run, and the shapes.
    static = [(make_trainer(r), sizes(r)) for r in arms.values()]
    assert (static[0] == static[1]) == alike


def sizes(run: Run):
    form, task = formatter(run), run.task
    return form.source_width, form.target_width, task.train, task.dev, task.test


def test_two_runs_share_a_program_exactly_where_they_would_compile_to_the_same():
    texts = [
        Text(justify=justify, source_eos=ends[0], target_eos=ends[1], start=start, mask_spaces=skip)
        for justify in (None, "right")
        for ends in ((True, True), (True, False), (False, True), (False, False))
        for start in ("bos", "first_target")
        for skip in (False, True)
        if justify or (ends[1] and not skip)
    ]
    small = Toy(train=5, dev=5, test=5)
    sizes_of = [(n, m) for n in (8, 9, 10, 11) for m in (2, 3)]
    toys = [replace(small, symbols=symbols, max_length=most) for symbols, most in sizes_of]
    tasks = [BASE.task, *toys]
    runs = [replace(BASE, task=task, text=text) for task in tasks for text in texts]
    told = [str(program(run)) for run in runs]
    static = [(make_trainer(run), sizes(run)) for run in runs]
    pairs = set(zip(told, static, strict=True))
    assert len(pairs) == len(set(told)) == len(set(static)) < len(runs)


def test_what_differs_is_named_in_every_reason():
    arms = {
        "base": BASE,
        "wide": replace(BASE, model=Model(hidden_size=5, cell="gru")),
        "lag": replace(BASE, text=Text(justify="right", lag=2)),
        "fast": replace(BASE, optim=replace(BASE.optim, learning_rate=0.5)),
        "masked": replace(BASE, text=Text(justify="right", mask_spaces=True)),
        "few": replace(BASE, task=replace(BASE.task, train=30)),
    }
    ablation = Ablation(arms, 2, 0)
    assert [list(group.arms) for group in ablation.groups] == [
        ["base", "fast"],
        ["wide"],
        ["lag"],
        ["masked"],
        ["few"],
    ]
    assert ablation.reasons() == [
        "the first",
        "model.cell: lstm -> gru; model.hidden_size: 4 -> 5",
        "symbols.in a source: 6 -> 8",
        "symbols.skipped by the encoder: False -> True",
        "questions.to train: 50 -> 30",
    ]


def test_what_decides_a_program_is_json_and_names_no_data():
    told = program(BASE)
    assert set(told) == {"model", "optim", "train", "symbols", "questions"}
    assert "learning_rate" not in told["optim"]
    assert differences(told, program(changed(BASE, "text", "source_order", "reversed"))) == []
    assert updates_per_epoch(BASE) == 4
    assert make_trainer(BASE).updates == 8


def test_an_arm_that_cannot_be_is_refused_before_anything_is_made():
    with pytest.raises(UserError, match="only 5,050 exist"):
        Ablation({"a": BASE, "b": replace(BASE, task=replace(BASE.task, train=9_999))}, 1, 0)
    for seeds, first in ((0, 0), (10_001, 0), (1, -1), (2, 2**31 - 1)):
        with pytest.raises(UserError, match=r"seeds? must be"):
            Ablation({"a": BASE}, seeds, first)


# --- the stack -----------------------------------------------------------------------------


def grouped() -> Group:
    arms = {
        "forward": BASE,
        "reversed": changed(BASE, "text", "source_order", "reversed"),
        "difference": changed(BASE, "task", "operator", "-"),
        "fast": changed(BASE, "optim", "learning_rate", 0.5),
    }
    (group,) = Ablation(arms, 2, 5).groups
    return group


def test_replicas_stand_arm_by_arm_and_have_names():
    group = grouped()
    assert group.replicas[:3] == [("forward", 5), ("forward", 6), ("reversed", 5)]
    assert group.labels[-1] == "fast seed 6"
    assert group.run == BASE


def test_every_replica_has_the_rows_of_its_own_arm_and_seed():
    group = grouped()
    train = jax.device_get(group.examples("train"))
    assert train.source.shape == (8, 50, 6)
    for replica, (arm, seed) in enumerate(group.replicas):
        form, pairs = group.formatters[arm], group.pairs(arm)[seed - 5]["train"]
        np.testing.assert_array_equal(train.source[replica], form.examples(pairs).source)
        question, _ = pairs[0]
        assert ("-" if arm == "difference" else "+") in question
        shown = form.vocabulary.decode(train.source[replica, 0])
        turned = shown[::-1] if arm == "reversed" else shown
        assert turned.strip() == question


def test_arms_share_their_questions_and_seeds_do_not():
    group = grouped()
    assert group.pairs("forward") is group.pairs("reversed")
    assert group.pairs("forward") is group.pairs("fast")
    assert group.pairs("forward")[0]["test"] == group.pairs("forward")[1]["test"]  # leak-free
    assert group.pairs("forward")[0]["train"] != group.pairs("forward")[1]["train"]
    alone = Group({"only": BASE}, 1, 6)
    assert alone.pairs("only")[0] == group.pairs("forward")[1]


def test_initial_weights_order_of_batches_and_questions_are_the_seeds_in_every_program():
    runs = {
        "base": BASE,
        "peeky": changed(BASE, "model", "peeky", True),
        "stacked": changed(BASE, "model", "decoder_layers", 2),
        "clipped": changed(BASE, "optim", "clip", 1.0),
        "lag": changed(BASE, "text", "lag", 2),
        "sampled": changed(BASE, "train", "teacher_forcing_end", 0.0),
        "stops": changed(BASE, "train", "patience", 1),
    }
    groups = Ablation(runs, 2, 3).groups
    assert len(groups) == len(runs)
    states = [group.init(make_programs(group.trainer, group.mesh)) for group in groups]
    named = [
        {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        for leaves in (jax.tree_util.tree_leaves_with_path(state.params) for state in states)
    ]
    for other, state in zip(named, states, strict=True):
        alike = [n for n in named[0] if n in other and named[0][n].shape == other[n].shape]
        assert len(alike) >= 6  # all of the encoder's, and most of the others
        for name in alike:
            np.testing.assert_array_equal(named[0][name], other[name], err_msg=name)
        keys = jax.random.key_data(state.key)
        np.testing.assert_array_equal(keys, jax.random.key_data(states[0].key))
        assert (keys[0] != keys[1]).any()
    for a, b in pairwise(groups):
        assert a.pairs(next(iter(a.arms))) is b.pairs(next(iter(b.arms)))  # drawn once for all


def test_seed_keys_are_threefry_whatever_the_default_is():
    with jax.default_prng_impl("rbg"):
        keys = seed_keys([0, 7])
    assert keys.dtype == jax.random.key(0, impl="threefry2x32").dtype
    np.testing.assert_array_equal(jax.random.key_data(keys), [[0, 0], [0, 7]])
