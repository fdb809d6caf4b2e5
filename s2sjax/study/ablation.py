"""Arms x seeds to programs, records and paired comparisons.

Arms of the same structure and shapes share a program (`group`). Programs run one after another. A
seed means the same questions and order of batches in all of them, and the same initial weights
where shapes agree.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations, product
from typing import Any

import numpy as np
from rich.console import Console

from s2sjax.errors import Interrupted, UserError, check_range, require
from s2sjax.files import write_atomically
from s2sjax.report.claims import paired
from s2sjax.report.results import Record, Results, dump_results, load_results
from s2sjax.report.tables import metric_name, score_table
from s2sjax.serial import config_hash, differences, from_json, to_json
from s2sjax.study.group import Group
from s2sjax.study.records import Observer, dev_metrics, final_records, record
from s2sjax.train.loop import DivergedError, divergence, fit, position, resume, stopped_early
from s2sjax.train.processes import anywhere, from_first, leads
from s2sjax.train.progress import EpochProgress
from s2sjax.train.run import Run, program_key
from s2sjax.train.saved import write_vocabularies
from s2sjax.train.stopping import Stop
from s2sjax.train.workdir import DIVERGED, Workdir, environment, renamed

COUNT = "records"
"""The last record of every replica: how many others there are. A damaged file has fewer."""


@dataclass(frozen=True)
class Ablation:
    """What is compared, over which seeds."""

    arms: Mapping[str, Run]
    seeds: int
    first_seed: int  # they count up from here
    cohorts: tuple[int, ...] = ()  # if seeds were added later: how many were trained each time
    devices_per_replica: int | None = None  # see `replicas.make_mesh`

    def __post_init__(self) -> None:
        check_range(1, self, "seeds", most=10_000)
        check_range(0, self, "first_seed", most=2**31 - self.seeds)
        if not self.arms or not all(isinstance(arm, str) for arm in self.arms):
            raise UserError(f"arms must be runs by name, not {[*self.arms]}")
        for arm, run in self.arms.items():
            _require_json(arm, run)
            for scored_by in ("sacrebleu", "rapidfuzz") if run.task.sizes is None else ():
                require(scored_by)
        for (a, run), (b, other) in combinations(self.arms.items(), 2):
            if run == other:
                same = f"arms {a!r} and {b!r} have the same settings"
                raise UserError(f"{same}: change one, or leave it out")
        self.programs  # noqa: B018 (refuses texts that cannot be before anything is written)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Ablation":
        """The ablation whose `config` this is; raises UserError for anything else."""
        kinds = {"arms": dict, "seeds": int, "first_seed": int}
        wrong = any(type(config.get(name)) is not kind for name, kind in kinds.items())
        if wrong or not config["arms"]:
            raise UserError("its config is not that of an ablation")
        arms = {name: from_json(Run, run, name) for name, run in config["arms"].items()}
        return cls(arms, config["seeds"], config["first_seed"])

    @property
    def config(self) -> dict[str, Any]:
        """The ablation as JSON values."""
        arms = {name: to_json(run) for name, run in self.arms.items()}
        return {"arms": arms, "seeds": self.seeds, "first_seed": self.first_seed}

    @property
    def run(self) -> Run:
        """The settings of the first arm."""
        return next(iter(self.arms.values()))

    @cached_property
    def programs(self) -> list[tuple[dict[str, Any], dict[str, Run]]]:
        """The key and the arms of each program, in the order of the first arms."""
        keys = {arm: program_key(run) for arm, run in self.arms.items()}
        found: list[tuple[dict[str, Any], dict[str, Run]]] = []
        for key in keys.values():
            if key not in [known for known, _ in found]:
                found.append((key, {arm: self.arms[arm] for arm, of in keys.items() if of == key}))
        return found

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The stacks to train, one for each program, by the name of their folder.

        Seeds that were added later are stacks of their own: "2.1" is program 2, first addition.
        """
        groups, first = {}, self.first_seed
        for cohort, seeds in enumerate(self.cohorts or (self.seeds,)):
            for number, (_, arms) in enumerate(self.programs, start=1):
                name = f"{number}.{cohort}" if cohort else f"{number}"
                groups[name] = Group(arms, seeds, first, self.devices_per_replica)
            first += seeds
        return groups


def _require_json(arm: str, run: Run) -> None:
    """Raise UserError for a run that its config.json would not give back."""
    try:
        same = from_json(Run, json.loads(json.dumps(to_json(run))), arm) == run
    except (TypeError, UserError):
        same = False
    if not same:
        own = "a frozen dataclass at the top of its module, with plain numbers, strings and None"
        raise UserError(f"{arm}: JSON cannot hold its settings; a task of your own is {own}")


def is_extension(held: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether the config `asked` only adds seeds or epochs to the config `held`.

    Epochs can be added only if the first ones stay as they were: not with early stopping, nor with
    a schedule that depends on the number of epochs.
    """
    try:
        before, now = Ablation.from_config(held), Ablation.from_config(asked)
    except (UserError, TypeError):
        return False
    return (
        {**held, "arms": asked["arms"], "seeds": asked["seeds"]} == asked
        and before.arms.keys() == now.arms.keys()
        and before.seeds <= now.seeds
        and [[*arms] for _, arms in before.programs] == [[*arms] for _, arms in now.programs]
        and all(_is_beginning(run, now.arms[arm]) for arm, run in before.arms.items())
    )


def _is_beginning(run: Run, longer: Run) -> bool:
    """Whether a run is the same as another or its beginning, and has no early stopping.

    With early stopping, seeds that are added would stop at another epoch than the first ones.
    """
    open_ended = (
        run.optim.schedule in ("constant", "inverse_sqrt")
        and run.train.teacher_forcing_end is None
        and run.train.epochs < longer.train.epochs
    )
    train = replace(longer.train, epochs=run.train.epochs)
    same = run == longer or (open_ended and run == replace(longer, train=train))
    return same and run.train.patience is None


def run(
    experiment: str,
    preset: str,
    ablation: Ablation,
    workdir: Workdir,
    console: Console,
    metrics: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    stop: Stop | None = None,
) -> Results:
    """Train, score and compare; returns the results and writes them to the workdir.

    What is finished in the workdir is not run again. The scores of each program are shown when it
    ends. `pairs` (a, b) of arms are compared, a with b, by `metrics` on the test set. A replica
    that diverges is left out, and so are its pair and an arm without replicas. Processes other than
    the first return nothing.

    Raises DivergedError where nothing is left.
    """
    config, path = ablation.config, workdir.results_file
    identity = {"experiment": experiment, "preset": preset, "config": config}
    if from_first(np.bool_(path.exists())):
        if not leads():
            return {}
        results = load_results(path)
        held = renamed({name: results[name] for name in identity}, identity)
        if changed := differences(held, identity):
            what = f"{path} is not of this run ({changed[0]})"
            raise UserError(f"{what}: move it away, or start elsewhere")
        console.print(f"{workdir.path} holds the finished run; nothing is trained again")
        return results
    if changes := workdir.environment_changes:
        numbers = "numbers may not be those of a run that was never interrupted"
        console.print(f"begun under {'; '.join(changes)}: {numbers}")
    groups = replace(ablation, cohorts=workdir.cohorts).groups
    if leads():
        write_vocabularies(workdir, groups)
    failed: DivergedError | None = None
    for number, (name, group) in enumerate(groups.items(), start=1):
        title = f"program {number} of {len(groups)}: {', '.join(group.arms)}"
        try:
            train_group(group, workdir, name, console, title, stop)
        except DivergedError as error:
            failed = failed or error
            known = _diverged(group, workdir)
            lost = {group.replicas[n]: update for n, update in error.diverged.items()}
            workdir.append(
                record(*one, "train", error.epoch, DIVERGED, float(update))
                for one, update in lost.items()
                if one not in known
            )
            console.print(f"left out: {error}", soft_wrap=True)
            continue
        if leads() and number < len(groups):  # after the last one the report shows all
            own = {**identity, "records": _records(group, workdir)}
            table = score_table(own, {metric_name(m): m for m in metrics})
            console.print(replace(table, title=f"Program {number}, test set").rich())
    if not leads():
        return {}
    records, lost = _without_lost(workdir.records())
    if failed and not records:
        raise failed
    left_out: dict[str, str] = {}
    for arm in ablation.arms:
        seeds = {seed: why for (of, seed), why in lost.items() if of == arm}
        if len(seeds) == ablation.seeds:
            left_out[arm] = next(iter(seeds.values()))
        else:
            left_out |= {f"{arm} seed {seed}": why for seed, why in seeds.items()}
    records = in_order(records)
    results = {
        **identity,
        "config_hash": config_hash(config),
        "environment": environment() | ({"changes": changes} if changes else {}),
        "seconds": round(workdir.seconds(), 1),
        "comparisons": comparisons(records, pairs, metrics),
        "records": records,
    } | ({"left_out": left_out} if left_out else {})
    workdir.check()
    write_atomically(path, dump_results(results))
    return load_results(path)


def train_group(
    group: Group, workdir: Workdir, name: str, console: Console, title: str, stop: Stop | None
) -> None:
    """Train and score one program unless that is done; its checkpoints are in the folder `name`."""
    train, replicas = group.run.train, {*group.replicas}
    own = _records(group, workdir)
    held = Counter((r["arm"], r["seed"]) for r in own)
    scored = {
        (r["arm"], r["seed"])
        for r in own
        if (r["metric"], r["value"] + 1) == (COUNT, held[r["arm"], r["seed"]])
        and (train.patience is not None or r["epoch"] == train.epochs)
    }
    if from_first(np.bool_(scored == replicas)):
        console.print(f"{title}: finished before", soft_wrap=True)
        return
    started = time.monotonic()
    console.print(f"{title}: drawing questions and weights, compiling ...", soft_wrap=True)
    checkpoints = workdir.checkpoints / name
    runs = group.stack()
    loop_state, found = resume(runs, group.begin(runs), checkpoints)
    done, updates = position(loop_state.state)
    if found:
        console.print(f"going on from the checkpoint after update {updates:,} (epoch {done})")
    due = {e for e in range(1, done + 1) if e % train.eval_every == 0 or e == train.epochs}
    workdir.forget(replicas, done, due)
    lost = _diverged(group, workdir)
    held = [(r["arm"], r["seed"], r["epoch"], r["metric"]) for r in _records(group, workdir)]
    wanted = [(*replica, epoch, DIVERGED) for replica, (epoch, _) in lost.items()]
    for replica, epoch, metric in product(group.replicas, due, dev_metrics(group)):
        if replica not in lost or epoch < lost[replica][0]:
            wanted.append((*replica, epoch, metric))
    if leads() and sorted(held) != sorted(wanted):
        what = f"does not hold the records of the {done} epochs that the checkpoint has"
        remedy = "restore it, or start in another --workdir"
        raise UserError(f"{workdir.metrics_file} {what}: {remedy}")
    each = runs.schedule.updates * len(group.replicas)
    with EpochProgress(console, done, train.epochs, each) as progress:
        state = fit(
            runs,
            loop_state,
            checkpoints=checkpoints,
            on_epoch=Observer(group, runs, workdir, progress, started, {*lost}),
            on_updates=progress.move,
            on_save=workdir.check,
            diverged={group.replicas.index(one): update for one, (_, update) in lost.items()},
            stop=stop,
        )
    if anywhere(bool(stop)):
        assert stop is not None
        message = "stopped after the last epoch and saved; the same command goes on with scoring"
        raise Interrupted(message, stop.signal or 0)
    console.print("scoring ...")
    started = time.monotonic()
    epoch, _ = position(state)
    early = stopped_early(state, train, len(group.replicas))
    lost = {*_diverged(group, workdir)}
    lost -= {replica for replica, ended in zip(group.replicas, early, strict=True) if ended}
    records = final_records(group, runs, state, epoch)
    records = [r for r in records if (r["arm"], r["seed"]) not in lost]
    held = Counter((r["arm"], r["seed"]) for r in [*_records(group, workdir), *records])
    records += [record(*one, "test", epoch, COUNT, float(held[one])) for one in group.replicas]
    workdir.append_at_once(records)
    workdir.spent(time.monotonic() - started)


def _diverged(group: Group, workdir: Workdir) -> dict[tuple[str, int], tuple[int, int]]:
    """Epoch and update of every replica that has diverged."""
    found = np.zeros((len(group.replicas), 2), np.int32)
    for r in _records(group, workdir):
        if r["metric"] == DIVERGED:
            found[group.replicas.index((r["arm"], r["seed"]))] = r["epoch"], r["value"]
    replicas = zip(group.replicas, from_first(found).tolist(), strict=True)
    return {replica: (epoch, update) for replica, (epoch, update) in replicas if epoch}


def _without_lost(records: Sequence[Record]) -> tuple[list[Record], dict[tuple[str, int], str]]:
    """The measurements of replicas that have test scores, and why the others have none."""
    scored = {
        (r["arm"], r["seed"]) for r in records if (r["split"], r["metric"]) == ("test", "loss")
    }
    lost = {
        (r["arm"], r["seed"]): divergence(f"{r['arm']} seed {r['seed']}", int(r["value"]))
        for r in records
        if r["metric"] == DIVERGED and (r["arm"], r["seed"]) not in scored
    }
    kept = [r for r in records if r["metric"] not in (COUNT, DIVERGED)]
    return [r for r in kept if (r["arm"], r["seed"]) not in lost], lost


def _records(group: Group, workdir: Workdir) -> list[Record]:
    """The workdir's records of a group's replicas."""
    replicas = {*group.replicas}
    return [r for r in workdir.records() if (r["arm"], r["seed"]) in replicas]


def in_order(records: Sequence[Record]) -> list[Record]:
    """Records of the training first, then the scores after it, on train and test."""
    place = {"dev": 0, "train": 1, "test": 2}
    return sorted(records, key=lambda r: 0 if r["metric"] == "epoch_loss" else place[r["split"]])


def comparisons(
    records: Sequence[Record], pairs: Sequence[tuple[str, str]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Pairs (a, b) of arms, a compared with b, paired by seed, on the test set.

    Arms that share no seed, because replicas have diverged, are not compared.
    """
    results, seeds = {"records": records}, defaultdict(set)
    for r in records:
        seeds[r["arm"]].add(r["seed"])
    pairs = [(a, b) for a, b in pairs if seeds[a] & seeds[b]]
    return [asdict(paired(results, a, b, metric)) for a, b in pairs for metric in metrics]
