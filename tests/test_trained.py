"""Trained models: what they answer, alone, together and as one; and how they are loaded."""

import json
import shutil
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SUMS, config, group, row, same, stack_of

from s2sjax.config import Text
from s2sjax.data import sentences as sentences_module
from s2sjax.data.rows import Formatter
from s2sjax.data.words import Rules, WordVocabulary
from s2sjax.errors import UserError
from s2sjax.model.beam import Beam, Beams
from s2sjax.model.decode import Greedy, Sampling
from s2sjax.model.dropout import Rates
from s2sjax.study.ablation import Ablation
from s2sjax.train import checkpoint
from s2sjax.train.loop import begin
from s2sjax.train.replicas import fetch, spread
from s2sjax.train.saved import VOCABULARIES, write_vocabularies
from s2sjax.train.trained import Trained, _spelled
from s2sjax.train.workdir import Workdir

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KINDS = ["sums", "sentences"]
TEXTS = ["w1 w2", "w3", "w0 w1 w2 w3 w4", "w5 somebody", "w2 w2 w2"]


def sharp_state(of_group, seed=0):
    """A state whose parameters are drawn large, so that answers differ: nothing is compiled."""
    rng, n = np.random.default_rng(seed), len(of_group.replicas)
    init, drops = of_group.programs.trainer.init, Rates.of(of_group.run.model)
    shapes = jax.eval_shape(init, np.zeros(2, np.uint32), np.float32(0), drops)

    def leaf(x):
        if x.dtype == np.float32:
            return rng.normal(0, 1.5, (n, *x.shape)).astype(np.float32)
        return np.zeros((n, *x.shape), x.dtype)

    return jax.tree.map(leaf, shapes)


def write(folder, groups, arms, seeds, number=5):
    """A workdir as training leaves it."""
    states = {}
    with Workdir(folder, config(arms, seeds)) as workdir:
        write_vocabularies(workdir, groups)
        for i, (name, own) in enumerate(groups.items()):
            states[name] = sharp_state(own, i)
            loop_state = fetch(begin(own.stack(), states[name]), len(own.replicas))
            checkpoint.save(workdir.checkpoints / name, number, loop_state)
    return states


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Workdir, its models and their parameters, by kind."""

    @cache
    def get(kind):
        own, folder = group(kind, 2), tmp_path_factory.mktemp(kind)
        (state,) = write(folder, {"1": own}, own.arms, 2).values()
        return folder, Trained.load(folder), state.params

    return get


def first(answers):
    """(arm, seed, text number) to the best answer."""
    return {
        (arm, seed, n): several[0]
        for arm, seeds in answers.items()
        for seed, texts in enumerate(seeds)
        for n, several in enumerate(texts)
    }


def alike(a, b):
    assert a.keys() == b.keys()
    for key, one in a.items():
        assert (one.text, one.symbols, one.ids) == (b[key].text, b[key].symbols, b[key].ids)
        assert one.score == pytest.approx(b[key].score, abs=1e-4)


# --- what is answered ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_that_were_scored_at_the_end_of_the_training(saved, kind):
    _, trained, params = saved(kind)
    own, runs = group(kind, 2), stack_of(kind, 2)
    test = own.rows("test")
    at_the_end = runs.score(spread(params, runs.programs.mesh), test)
    asked = {arm: [s.pairs for s in test[own.of(arm)]] for arm in own.arms}
    decoded = trained.evaluate(asked)
    texts = [source for source, _ in test[0].pairs]
    answers = first(trained.answer(texts))
    assert len({a.text for a in answers.values()}) > 5
    compared = 0
    for arm in own.arms:
        np.testing.assert_array_equal(decoded[arm].answers, at_the_end.answers[own.of(arm)])
        np.testing.assert_array_equal(decoded[arm].right, at_the_end.right[own.of(arm)])
        for seed in range(2):
            for n, (_, gold) in enumerate(test[0].pairs):
                answer, tokens = answers[arm, seed, n], decoded[arm].answers[seed, n]
                if {*tokens.tolist()} & {*own.formatter(arm).target.silent_ids}:
                    continue  # never written in an answer
                compared += 1
                assert answer.text == own.formatter(arm).read(tokens)
                assert answer.ids == tuple(tokens[: len(answer.ids)].tolist())
                assert trained.is_right(arm, answer, [gold]) == decoded[arm].right[seed, n]
    assert compared > 5


@pytest.mark.parametrize("policy", [Greedy(), Sampling(3.0), Beam(3, 1.0)])
def test_answers_are_text_and_its_end_and_nothing_else(saved, policy):
    """Fault 10: neither padding nor a start symbol is written, however likely."""
    _, trained, _ = saved("sentences")
    for seeds in trained.answer(TEXTS, policy).values():
        for answer in (one for texts in seeds for several in texts for one in several):
            assert not {"<pad>", "<bos>"} & {*answer.symbols}
            assert np.isfinite(answer.score)


@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_of_one_is_greedy(saved, kind):
    _, trained, _ = saved(kind)
    texts = [source for source, _ in group(kind, 2).rows("dev")[0].pairs]
    alike(first(trained.answer(texts, Beam(1, 0.0))), first(trained.answer(texts)))


def test_the_score_of_an_answer_is_what_it_gets_when_it_is_given(saved):
    _, trained, _ = saved("sentences")
    rows = [group("sentences", 2).rows(split)[0] for split in ("dev", "test")]
    texts = [source for split in rows for source, _ in split.pairs]
    answers, compared = first(trained.answer(texts)), 0
    for arm, formatter in trained.formatters.items():
        for seed in range(2):
            own = [answers[arm, seed, n] for n in range(len(texts))]
            scored = trained.score([(t, a.text) for t, a in zip(texts, own, strict=True)])[arm]
            for n, answer in enumerate(own):
                assert answer.score == pytest.approx(answer.log_probs.sum(), abs=1e-4)
                if tuple(formatter.target_ids(answer.text)[1:]) == answer.ids:  # it came to its end
                    assert scored.log_probs[seed, n] == pytest.approx(answer.score, abs=1e-4)
                    assert scored.symbols[n] == len(answer.ids)
                    compared += 1
    assert compared > 5


def test_an_answer_depends_on_no_other_question_nor_on_their_order(saved):
    _, trained, _ = saved("sentences")
    together = first(trained.answer(TEXTS))
    turned = first(trained.answer([*TEXTS[::-1], "w1", *["w2 w3 w4 w5"] * 3]))
    for n, text in enumerate(TEXTS):
        (alone,) = ({k[:2]: a for k, a in first(trained.answer([text])).items()},)
        alike({k[:2]: a for k, a in together.items() if k[2] == n}, alone)
        place = len(TEXTS) - 1 - n
        alike(alone, {k[:2]: a for k, a in turned.items() if k[2] == place})


def test_a_text_without_symbols_is_not_asked_and_a_long_one_is_read_whole(saved):
    _, trained, _ = saved("sentences")
    found = trained.answer(["", "w1", "  ", " ".join(["w1"] * 11)], align=True)["reversed"][0]
    assert [a.text for texts in (found[0], found[2]) for a in texts] == ["", ""]
    assert len(found[3][0].alignment[0]) == 12
    widest = max(width[1] for width in trained.stacks[0].widths)
    assert len(found[3][0].ids) <= 2 * (widest - 1)


def test_a_beam_gives_different_texts_best_first(saved):
    _, trained, _ = saved("sentences")
    most = 0
    for texts in trained.answer(TEXTS, Beam(3, 1.0))["forward"]:
        for several in texts:
            assert len({a.text for a in several}) == len(several) <= 3
            assert all(a.score >= b.score for a, b in pairwise(several))
            most = max(most, len(several))
    assert most == 3


def test_a_draw_is_a_function_of_seed_and_place(saved):
    _, trained, _ = saved("sentences")
    ask = partial(trained.answer, policy=Sampling(3.0))
    drawn = [a[0].text for a in ask(["w1 w2"] * 20, seed=3)["forward"][0]]
    assert len({*drawn}) > 5
    assert [
        a[0].text for a in ask(["w1 w2"] * 3, seed=3, numbers=[17, 18, 19])["forward"][0]
    ] == drawn[17:]
    assert [a[0].text for a in ask(["w1 w2"] * 20, seed=4)["forward"][0]] != drawn


def test_alignments_are_weights_over_the_source_in_the_order_of_the_text(saved):
    _, trained, _ = saved("sentences")
    pairs = [("w1 w2 w3", "v1 v2"), ("w4", "v3 v4")]
    scored = trained.score(pairs, align=True)
    for arm, formatter in trained.formatters.items():
        for n, (source, target) in enumerate(pairs):
            read, written = len(formatter.source_ids(source)), len(formatter.target_ids(target)) - 1
            own = scored[arm].alignment[:, n, :written]
            np.testing.assert_allclose(own.sum(axis=-1), 1, atol=1e-5)
            assert (own[..., read:] == 0).all()
    answers = first(trained.answer([pairs[0][0]], align=True))
    for (arm, seed, _), answer in answers.items():
        forced = trained.score([(pairs[0][0], answer.text)], align=True)[arm].alignment[seed, 0, 0]
        if arm == "reversed":
            forced = forced[[2, 1, 0, 3]]
        np.testing.assert_allclose(answer.alignment[0], forced, atol=1e-5)


# --- several seeds as one ------------------------------------------------------------------


def test_an_ensemble_of_one_seed_is_that_seed(saved):
    folder, trained, _ = saved("sentences")
    one = Trained.load(folder, seeds=[1])
    alone = first(one.answer(TEXTS, ensemble=True, align=True))
    wanted = {(arm, 0, n): a for (arm, s, n), a in first(trained.answer(TEXTS)).items() if s == 1}
    alike(alone, wanted)


def test_an_ensemble_writes_the_symbol_with_the_greatest_mean_probability(saved):
    _, trained, params = saved("sentences")
    own = group("sentences", 2)
    model = own.programs.trainer
    most = max(width[1] for width in trained.stacks[0].widths) - 1

    @jax.jit
    def next_symbols(params, source, target):
        return jax.nn.softmax(model.apply(params, source, target))

    found = trained.answer(TEXTS, ensemble=True)
    for arm in own.arms:
        formatter, members = own.formatter(arm), [row(params, i) for i in range(4)[own.of(arm)]]
        for n, text in enumerate(TEXTS):
            source = formatter.filled([formatter.row((text, ""))], (6, 2)).source
            ids, log_prob = [], 0.0
            while len(ids) < most and (not ids or ids[-1] != 2):
                target = np.array([[1, *ids, *[0] * (most - 1 - len(ids))]], np.int32)
                mean = np.mean([next_symbols(p, source, target)[0, len(ids)] for p in members], 0)
                ids.append(2 + int(mean[2:].argmax()))  # neither pad nor bos
                log_prob += float(np.log(mean[ids[-1]]))
            (answer,) = found[arm][0][n]
            assert answer.ids == tuple(ids)
            assert answer.score == pytest.approx(log_prob, abs=1e-3)


# --- unknown words -------------------------------------------------------------------------

UNK, EOS = 3, 2
SOURCE = WordVocabulary(("frau", "singt"), Rules())
TARGET = WordVocabulary(("ms", "sings"), Rules())
LOOKS = np.array(
    [
        [0.8, 0.1, 0.1, 0.0],
        [0.1, 0.3, 0.1, 0.5],  # mostly at the end symbol
        [0.3, 0.3, 0.1, 0.3],  # of equals the first
        [0.0, 0.0, 0.0, 1.0],
    ],
    np.float32,
)


def spelled(ids, looks=LOOKS, text="Frau Vogelsang singt", replaced=True, **order):
    text_settings = Text(source_unit="words", target_unit="words", **order)
    formatter = Formatter(text_settings, SOURCE, TARGET, None)
    tokens = np.array((ids + [EOS] * 4)[:4], np.int32)
    found = Beams(tokens, np.zeros(4, np.float32), np.float32(0), looks)
    return _spelled(formatter, text, found, [1], replaced)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([UNK, UNK, UNK], "frau vogelsang frau"),
        ([4, UNK, 5], "ms vogelsang sings"),
        ([4, 5], "ms sings"),
        ([], ""),
    ],
)
def test_an_unknown_word_becomes_the_source_word_it_looked_at_most(ids, text):
    assert spelled(ids).text == text
    plain = spelled(ids, replaced=False)
    assert plain.text == TARGET.decode(ids)
    assert plain.symbols == spelled(ids).symbols
    np.testing.assert_array_equal(plain.alignment, LOOKS[: len(ids) + 1])


def test_orders_of_both_sides_are_undone_where_unknown_words_are_replaced():
    turned = LOOKS[:, [2, 1, 0, 3]]  # what was read first was written last
    assert spelled([4, UNK, 5], turned, source_order="reversed").text == "ms vogelsang sings"
    assert spelled([5, UNK, 4], target_order="reversed").text == "ms vogelsang sings"
    np.testing.assert_array_equal(
        spelled([4], turned, source_order="reversed").alignment, LOOKS[:2]
    )


@pytest.mark.parametrize("asked", ["align", "replace_unknown"])
def test_a_model_without_attention_has_no_alignment(saved, asked):
    with pytest.raises(UserError, match="arm 'forward' has no attention"):
        saved("sums")[1].answer(["ab"], **{asked: True})


# --- loading -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two programs, and a seed that was added later: workdir, and parameters by folder."""
    big = replace(SUMS, model=replace(SUMS.model, hidden_size=9))
    arms = {
        "small": SUMS,
        "big": big,
        "fast": replace(SUMS, optim=replace(SUMS.optim, epsilon=1.0)),
    }
    ablation = Ablation(arms, 3, 4, cohorts=(2, 1))
    folder = tmp_path_factory.mktemp("mixed")
    states = write(folder, ablation.groups, arms, 3)
    assert {*states} == {"1", "2", "3", "1.1", "2.1", "3.1"}
    return folder, {name: state.params for name, state in states.items()}


def test_all_arms_and_seeds_of_all_programs_and_cohorts_are_loaded_or_some(mixed):
    folder, params = mixed
    trained = Trained.load(folder)
    assert ([*trained.arms], trained.seeds) == (["small", "big", "fast"], (4, 5, 6))
    assert [[*p.runs] for p in trained.stacks] == [["small"], ["big"], ["fast"]]
    both = jax.tree.map(lambda *x: np.concatenate(x), params["2"], params["2.1"])
    same(trained.stacks[1].params, both)
    some = Trained.load(folder, arms=["big"], seeds=[6, 4])
    assert ([*some.arms], some.seeds, len(some.stacks)) == (["big"], (4, 6), 1)
    same(some.stacks[0].params, row(both, np.array([0, 2])))
    same(trained.only(["big"]).stacks[0].params, both)
    assert [*trained.only(["big"]).formatters] == ["big"]


def test_an_unfinished_run_has_the_models_of_its_last_checkpoint(saved, tmp_path):
    own = group("sums", 2)
    write(tmp_path, {"1": own}, own.arms, 2)
    later = fetch(begin(own.stack(), sharp_state(own, 9)), 4)
    checkpoint.save(tmp_path / "checkpoints" / "1", 6, later)
    same(Trained.load(tmp_path).stacks[0].params, later.state.params)
    shutil.rmtree(tmp_path / "checkpoints" / "1")
    with pytest.raises(UserError, match="has no checkpoint yet: let the training go on"):
        Trained.load(tmp_path)


def test_loading_and_answering_need_no_data_files(saved, monkeypatch):
    folder, trained, _ = saved("sentences")
    wanted = first(trained.answer(TEXTS))
    monkeypatch.setattr(sentences_module, "read_corpus", None)
    loaded = Trained.load(folder)
    assert loaded.formatters == trained.formatters
    alike(first(loaded.answer(TEXTS)), wanted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"arms": ["nothing"]}, "has no arm 'nothing'; there are small, big, fast"),
        ({"seeds": [3]}, "has no seed 3; there are 4, 5, 6"),
    ],
)
def test_an_arm_or_seed_that_is_not_there_is_named(mixed, given, message):
    with pytest.raises(UserError, match=message):
        Trained.load(mixed[0], **given)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        '{"stacks": [',
        "7",
        "[]",
        "{}",
        {"stacks": 7},
        {"stacks": [7]},
        {"vocabularies": [7]},
        {"vocabularies": []},
        {"vocabularies": [{"kind": "words", "words": [], "rules": {"lower": 1}}] * 2},
    ],
)
def test_damaged_vocabularies_are_one_line(saved, tmp_path, damage):
    folder = saved("sentences")[0]
    for name in ("config.json", VOCABULARIES):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    held = json.loads((folder / VOCABULARIES).read_text())
    text = damage if isinstance(damage, str) else json.dumps({**held, **damage})
    (tmp_path / VOCABULARIES).write_text(text)
    with pytest.raises(UserError, match="damaged") as caught:
        Trained.load(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / VOCABULARIES).unlink()
    with pytest.raises(UserError, match=r"vocabularies\.json does not exist: restore it, or give"):
        Trained.load(tmp_path)


def test_a_run_does_not_go_on_with_other_vocabularies(tmp_path):
    own = group("sentences", 1)
    write(tmp_path, {"1": own}, own.arms, 1)
    held = (tmp_path / VOCABULARIES).read_text()
    (tmp_path / VOCABULARIES).write_text(held.replace('"w1"', '"w9"'))
    with Workdir(tmp_path, config(own.arms, 1)) as workdir:
        with pytest.raises(UserError, match="does not hold the vocabularies that these settings"):
            write_vocabularies(workdir, {"1": own})
        shutil.rmtree(workdir.checkpoints / "1")
        write_vocabularies(workdir, {"1": own})  # nothing was trained: nothing is lost
    assert (tmp_path / VOCABULARIES).read_text() == held


def test_pairs_of_several_lengths_and_longer_than_any_are_decoded(saved):
    _, trained, _ = saved("sentences")
    long = " ".join(["v1"] * 9)
    pairs = [[("w1 w2", "v1")], [("w1", long)]]
    found = trained.evaluate({"forward": pairs})["forward"]
    assert found.answers.shape[:2] == (2, 1)
    assert found.right.shape == (2, 1)
    both = trained.score([("w1", "v1"), ("w2", long)])["forward"]
    assert both.symbols.tolist() == [2, 10]
    assert jnp.isfinite(both.log_probs).all()
