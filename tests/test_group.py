"""Arms of one program: what they may differ in, and what every replica of every program shares."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import jax
import numpy as np
import pytest

from s2sjax.config import Model, Optimiser, Text, Training
from s2sjax.data.dataset import seed_key
from s2sjax.data.tasks import Addition, Dates, Sentences, Toy
from s2sjax.errors import UserError
from s2sjax.serial import differences
from s2sjax.study.ablation import Ablation
from s2sjax.study.group import Group
from s2sjax.study.plan import program_table
from s2sjax.train.run import Run, make_schedule, make_trainer, program_key, scoring_buckets

FEW = {"train": 50, "dev": 20, "test": 20}
SUMS = Run(
    Addition(digits=2, **FEW),
    Text(source_justify="right", target_justify="right"),
    Model(hidden_size=4),
    Optimiser(warmup=3),
    Training(epochs=2, batch_size=16),
)
TOYS = replace(SUMS, task=Toy(symbols=4, max_length=4, **FEW), text=Text())
LOOKING = Model(hidden_size=4, attention="dot", embed_dim=4, encoder_layers=2)
BASES = {
    "sums": SUMS,
    "toys": TOYS,
    "dates": replace(TOYS, task=Dates(locales="de", **FEW)),
    "attending": replace(SUMS, model=LOOKING),
    "dropping": replace(SUMS, model=replace(LOOKING, dropout=0.2, recurrent_dropout=0.2)),
    "pairs": replace(
        TOYS,
        task=Sentences("pairs.tsv", dev_share=0.2, test_share=0.2),
        text=Text("words", "words"),
        train=Training(epochs=2, tokens_per_batch=40, buckets=2),
    ),
    "files": replace(
        TOYS,
        task=Sentences("pairs.tsv", dev="dev.tsv", test="test.tsv"),
        text=Text("words", "characters"),
    ),
}

# Other values of settings, by what they are settings of: those that change only data or a traced
# number, so that arms share a program, and the others.
ALIKE: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("sums", "task"): {
        "operands": ["any_length", "short_first"],  # of two digits none is short
        "operator": "-",
        "splits": "independent",
        "sha256": "0" * 64,
    },
    ("sums", "text"): {
        "source_order": ["reversed", "digits_reversed", "operands_swapped"],
        "target_order": "reversed",
        "source_justify": "left",
        "target_justify": "left",
        "justify_when": "after",
        # Nothing that these are about is in a sum:
        **{"min_count": 2, "source_size": 9, "target_size": 9, "max_length": 9},
    },
    ("sums", "optim"): {"learning_rate": 0.1},
    ("toys", "task"): {"kind": "sort", "min_length": 2},
    ("toys", "text"): {"source_order": "reversed"},
    ("dates", "task"): {"first_year": 1901, "last_year": 2098, "formats": "full"},
    ("dropping", "model"): {"dropout": 0.1, "recurrent_dropout": 0.1},
    ("pairs", "text"): {"source_order": "reversed", "target_order": "reversed", "source_size": 99},
    ("pairs", "task"): {"train": "twin.tsv"},
    ("files", "task"): {"columns": "1,2", "dev": "twin.dev.tsv"},
}
APART: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("sums", "task"): {"digits": 3, "terms": 3, "train": 51, "dev": 21, "test": 21},
    ("sums", "text"): {
        "source_order": "doubled",
        **{"source_justify": None, "target_justify": None, "mask_spaces": True, "lag": 1},
        **{"source_eos": False, "target_eos": False, "start": "first_target"},
    },
    ("toys", "task"): {
        **{"symbols": 5, "max_length": 5, "longer": 2, "train": 51, "dev": 21, "test": 21},
    },
    ("toys", "text"): {"source_unit": ["words", "subwords"], "target_unit": "words"},
    ("dates", "task"): {"locales": "el", "train": 51, "dev": 21, "test": 21},
    ("sums", "model"): {
        **{"cell": "rnn", "hidden_size": 6, "encoder_layers": 2, "decoder_layers": 2},
        **{"decoder": "repeat", "peeky": True, "decoder_init": "learned", "directions": 2},
        **{"attention": "dot", "dropout": 0.1, "recurrent_dropout": 0.1, "embed_dim": 3},
        **{"init": "torch", "precision": "bfloat16", "unroll": 2},
    },
    ("attending", "model"): {"attend": ["before", "feeding"], "decoder_init": "zero"},
    ("dropping", "model"): {"dropout": 0.0, "recurrent_dropout": 0.0},
    ("sums", "optim"): {"epsilon": 1e-8, "clip": 1.0, "schedule": "cosine", "warmup": 4},
    ("sums", "train"): {
        **{"epochs": 3, "batch_size": 17, "eval_every": 1, "checkpoint_every": 1, "shown": 1},
        **{"show_every": 1, "teacher_forcing": 0.5, "teacher_forcing_end": 0.5},
        **{"label_smoothing": 0.1, "patience": 1},
    },
    ("pairs", "train"): {"tokens_per_batch": [30, None], "buckets": 1},
    ("pairs", "task"): {
        **{"train": "longer.tsv", "dev_share": 0.3, "test_share": 0.3, "stream": True},
    },
    ("files", "task"): {"test": "dev.tsv", "columns": "2,1"},
    ("pairs", "text"): {
        **{"source_unit": "characters", "target_unit": "subwords", "source_order": "doubled"},
        **{
            "lower_case": False,
            "cut": "whitespace",
            "min_count": 9,
            "target_size": 6,
            "max_length": 6,
        },
    },
}
EVERY = [
    (base, part, name, value, alike)
    for alike, table in ((True, ALIKE), (False, APART))
    for (base, part), changes in table.items()
    for name, values in changes.items()
    for value in (values if isinstance(values, list) else [values])
]


@pytest.fixture(scope="module", autouse=True)
def pairs_of_the_test(tmp_path_factory):
    """Files of pairs in the working directory; a twin has other words of the same lengths."""
    words = ["ein", "zwei", "drei", "Drei", "fünf"]
    sources = [" ".join(words[(i + k) % 5] for k in range(1 + i % 6)) for i in range(60)]
    text = "".join(f"{s} n{i}.\t{'x ' * (1 + i % 4)}Y{i % 3}\n" for i, s in enumerate(sources))
    folder = tmp_path_factory.mktemp("pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "pairs.tsv").write_text(text)
        # The split of a pair is a function of its source: only targets differ.
        (folder / "twin.tsv").write_text(text.replace("x", "z"))
        (folder / "longer.tsv").write_text(text.replace("\tx", "\tx x"))
        (folder / "dev.tsv").write_text("ein zwei\tx Y1\ndrei\tx x Y2\n")
        (folder / "twin.dev.tsv").write_text("drei zwei\tx Y0\nzwei\tx x Y1\n")
        (folder / "test.tsv").write_text("ein\tx Y1\n")
        yield


def changed(run: Run, part: str, name: str, value: Any) -> Run:
    """The run with another value of a setting, and of those that go with it."""
    settings = {part: replace(getattr(run, part), **{name: value})}
    if value == "repeat":
        settings["text"] = replace(run.text, start="nothing")
    return replace(run, **settings)


def test_every_setting_is_in_the_table():
    known: dict[type, set[str]] = {}
    for base, part, name, *_ in EVERY:
        known.setdefault(type(getattr(BASES[base], part)), set()).add(name)
    known[Addition].add("file")  # needs one: see test_addition
    known[Sentences].add("sha256")  # that of the files: set here by `pinned`
    for kind, names in known.items():
        assert names == {f.name for f in fields(kind)}


def static(run: Run) -> tuple[Any, ...]:
    """What a stack has in common: the trainer, the shapes of all rows, the schedule."""
    group = Group({"arm": run}, 2, 0)
    rows = {split: group.rows(split) for split in ("train", "dev", "test")}
    shapes = {k: [[side.shape for side in s.examples] for s in v] for k, v in rows.items()}
    schedule = make_schedule(run)
    placed = [(starts.tolist()) for starts in schedule.starts], schedule.bucket_of.tolist()
    bound = [s.lengths.max(axis=0).tolist() for v in rows.values() for s in v]
    assert all((np.array(b) <= scoring_buckets(run)[-1][:2]).all() for b in bound)
    own = () if run.formatter.row_widths else [s.lengths.tolist() for v in rows.values() for s in v]
    return make_trainer(run, updates=6), shapes, schedule.buckets, placed, scoring_buckets(run), own


@pytest.mark.parametrize(
    ("base", "part", "name", "value", "alike"),
    EVERY,
    ids=[f"{base}.{part}.{name} {value}" for base, part, name, value, _ in EVERY],
)
def test_arms_share_a_program_exactly_where_one_stack_can_hold_them(base, part, name, value, alike):
    run = BASES[base]
    other = changed(run, part, name, value)
    groups = Ablation({"base": run, "other": other}, 2, 0).groups
    together = [["base", "other"]] if alike else [["base"], ["other"]]
    assert [[*group.arms] for group in groups.values()] == together
    assert (static(run) == static(other)) == alike


def test_what_differs_is_named_in_every_reason():
    arms = {
        "base": SUMS,
        "wide": replace(SUMS, model=Model(hidden_size=5, cell="gru")),
        "lag": changed(SUMS, "text", "lag", 2),
        "fast": changed(SUMS, "optim", "learning_rate", 0.5),
        "masked": changed(SUMS, "text", "mask_spaces", True),
        "few": changed(SUMS, "task", "train", 30),
    }
    ablation = Ablation(arms, 2, 0)
    assert {name: [*group.arms] for name, group in ablation.groups.items()} == {
        **{"1": ["base", "fast"], "2": ["wide"], "3": ["lag"], "4": ["masked"], "5": ["few"]}
    }
    assert [row[3] for row in program_table(ablation).rows] == [
        "the first",
        "model.cell: lstm -> gru; model.hidden_size: 4 -> 5",
        "batches: [[6, 5, 16]] -> [[8, 5, 16]]; rows.widths.source: 6 -> 8; "
        "scored: [[6, 5, 16]] -> [[8, 5, 16]]",
        "symbols.skipped by the encoder: None -> -1",
        "rows.number.train: 50 -> 30",
    ]
    assert differences(program_key(SUMS), program_key(arms["fast"])) == []


def test_an_arm_that_cannot_be_is_refused_before_anything_is_made():
    for seeds, first in ((0, 0), (10_001, 0), (1, -1), (2, 2**31 - 1)):
        with pytest.raises(UserError, match=r"seeds? must be"):
            Ablation({"a": SUMS}, seeds, first)
    with pytest.raises(UserError, match=r"missing\.tsv cannot be read"):
        Ablation({"a": SUMS, "b": replace(BASES["pairs"], task=Sentences("missing.tsv"))}, 1, 0)
    buckets = replace(SUMS.train, tokens_per_batch=64)
    with pytest.raises(UserError, match=r"tokens_per_batch needs pairs from files"):
        Ablation({"a": replace(SUMS, train=buckets)}, 1, 0)


# --- the stack -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def group() -> Group:
    arms = {
        "forward": SUMS,
        "reversed": changed(SUMS, "text", "source_order", "reversed"),
        "difference": changed(SUMS, "task", "operator", "-"),
        "fast": changed(SUMS, "optim", "learning_rate", 0.5),
    }
    (group,) = Ablation(arms, 2, 5).groups.values()
    return group


def test_replicas_are_in_the_order_of_arms_and_have_names(group):
    assert group.replicas[:3] == [("forward", 5), ("forward", 6), ("reversed", 5)]
    assert group.labels[-1] == "fast seed 6"
    assert [group.replicas[group.of(arm)][0] for arm in group.arms] == [(a, 5) for a in group.arms]
    assert group.run == SUMS


def test_every_replica_has_the_rows_of_its_own_arm_and_seed(group):
    for (arm, seed), rows in zip(group.replicas, group.rows("train"), strict=True):
        formatter, pairs = group.formatter(arm), group.pairs(arm)[seed - 5]["train"]
        np.testing.assert_array_equal(rows.examples.source, formatter.examples(pairs).source)
        question, _ = rows.pairs[0]
        assert ("-" if arm == "difference" else "+") in question
        shown = formatter.source.decode(rows.examples.source[0])
        in_order = shown[::-1] if arm == "reversed" else shown
        assert in_order.strip() == question


def test_arms_share_their_questions_and_seeds_do_not(group):
    assert group.pairs("forward")[0] is group.pairs("reversed")[0] is group.pairs("fast")[0]
    assert group.pairs("forward")[0]["test"] == group.pairs("forward")[1]["test"]  # leak-free
    assert group.pairs("forward")[0]["train"] != group.pairs("forward")[1]["train"]
    assert Group({"only": SUMS}, 1, 6).pairs("only")[0] == group.pairs("forward")[1]
    files = Group({"only": BASES["pairs"]}, 2, 0).rows("train")
    assert files[0] is files[1]  # no seed decides them


def test_initial_weights_order_of_batches_and_questions_are_the_seeds_in_every_program():
    peeky = changed(SUMS, "model", "peeky", True)
    runs = {
        "base": SUMS,
        "peeky, stacked": changed(peeky, "model", "decoder_layers", 2),
        "clipped, lag": changed(changed(SUMS, "optim", "clip", 1.0), "text", "lag", 2),
        "stops": changed(SUMS, "train", "patience", 1),
    }
    groups = Ablation(runs, 2, 3).groups.values()
    assert len(groups) == len(runs)
    states = [jax.device_get(group.begin(group.stack()).state) for group in groups]
    named = [
        {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        for leaves in (jax.tree_util.tree_leaves_with_path(state.params) for state in states)
    ]
    for other, state in zip(named, states, strict=True):
        same = [n for n in named[0] if n in other and named[0][n].shape == other[n].shape]
        assert len(same) >= 6  # all of the encoder's, and most of the others
        for name in same:
            np.testing.assert_array_equal(named[0][name], other[name], err_msg=name)
        np.testing.assert_array_equal(state.key, states[0].key)
        assert (state.key[0] != state.key[1]).any()


def test_seed_keys_are_threefry_whatever_the_default_is():
    with jax.default_prng_impl("rbg"):
        key = seed_key(7)
    assert key.dtype == jax.random.key(0, impl="threefry2x32").dtype
    np.testing.assert_array_equal(jax.random.key_data(key), [0, 7])
