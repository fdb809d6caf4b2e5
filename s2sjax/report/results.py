"""The results.json of a finished run: read it, write it, select numbers from it.

A results.json is an object of

- ``experiment``, ``preset``: names;
- ``config``, ``config_hash``: the settings of every arm, the seeds, and their hash;
- ``environment``: versions and devices;
- ``comparisons``: a list of `stats.Comparison`, empty for a run of one arm;
- ``left_out``: ``{arm, or "ARM seed SEED": why}``, where the training of some diverged;
- ``series``: what was measured, a line for each arm, split and metric, which keeps the file small:
  ``{"arm", "split", "metric", "epochs": [...], "values": {seed: [value at each epoch]}}``.

`Results` are the same with ``records``, a list of `Record`, instead of ``series``.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, get_type_hints

from s2sjax.errors import UserError

Results = Mapping[str, Any]


class Record(TypedDict):
    """One measurement."""

    arm: str
    seed: int
    split: str
    epoch: int
    metric: str
    value: float


_TYPES = get_type_hints(Record)
KINDS = {"experiment": str, "preset": str, "config": dict, "config_hash": str}
KINDS |= {"environment": dict, "comparisons": list}


def checked(values: Any) -> Record:
    """A record as it was read; of a damaged one an error of any kind."""
    right = all(type(values[name]) is _TYPES[name] for name in _TYPES if name != "value")
    if not (right and len(values) == len(_TYPES) and math.isfinite(values["value"])):
        raise ValueError(f"not finite, or of another type: {str(values)[:200]}")
    return values


def load_results(path: Path) -> Results:
    """Reads a results.json; raises UserError where it is missing or damaged."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in KINDS.items():
            if not isinstance(results[name], kind):
                raise TypeError(f"{name} must be of type {kind.__name__}")
        math.isfinite(results.get("seconds", 0.0))  # TypeError for what is no number
        results["records"] = _unpacked(results.pop("series"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the experiment that writes it.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # however the file is damaged
        why = f"{type(error).__name__}: {error}".split("\n")[0]
        remedy = "restore it, or delete it and run the experiment again"
        raise UserError(f"{path} is damaged ({why}): {remedy}") from error
    return results


def arms(results: Results) -> list[str]:
    """Names of the arms, in the order of their first record."""
    return list(dict.fromkeys(record["arm"] for record in results["records"]))


def series(results: Results, arm: str, metric: str, split: str) -> dict[int, dict[int, float]]:
    """``{seed: {epoch: value}}`` of one arm, seeds and epochs ascending."""
    curves: dict[int, dict[int, float]] = defaultdict(dict)
    for record in results["records"]:
        if record["metric"] == metric and record["arm"] == arm and record["split"] == split:
            curves[record["seed"]][record["epoch"]] = record["value"]
    if not curves:
        known = {
            key: [*dict.fromkeys(record[key] for record in results["records"])]
            for key in ("arm", "metric", "split")
        }
        raise ValueError(
            f"No records of arm {arm!r}, metric {metric!r}, split {split!r}; there are arms "
            f"{known['arm']}, metrics {known['metric']} and splits {known['split']}."
        )
    return {seed: dict(sorted(curves[seed].items())) for seed in sorted(curves)}


def by_seed(results: Results, arm: str, metric: str, split: str = "test") -> dict[int, float]:
    """``{seed: value}`` of one arm at its last epoch, seeds ascending."""
    curves = series(results, arm, metric, split)
    last = max(max(curve) for curve in curves.values())
    if short := [seed for seed, curve in curves.items() if last not in curve]:
        where = f"{metric!r} on {split!r} at the last epoch, {last}"
        raise ValueError(f"Seeds {short} of arm {arm!r} lack {where}")
    return {seed: curve[last] for seed, curve in curves.items()}


def values(results: Results, arm: str, metric: str, split: str = "test") -> list[float]:
    """The values of `by_seed`, in seed order."""
    return [*by_seed(results, arm, metric, split).values()]


def dump_results(results: Results) -> str:
    """Results as the JSON of a results.json, with a line for each series."""
    others = {name: value for name, value in results.items() if name != "records"}
    heads = [f"{json.dumps(name)}: {json.dumps(others[name], indent=1)}" for name in others]
    lines = [json.dumps(line, allow_nan=False) for line in _packed(results["records"])]
    return "{\n" + ",\n".join([*heads, '"series": [\n' + ",\n".join(lines) + "\n]"]) + "\n}\n"


def _packed(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """The series of records; seeds with the same epochs are in one."""
    curves: dict[Any, dict[int, float]] = defaultdict(dict)
    for r in records:
        curves[r["arm"], r["split"], r["metric"], r["seed"]][r["epoch"]] = r["value"]
    lines: dict[Any, dict[int, list[float]]] = defaultdict(dict)
    for (*place, seed), curve in curves.items():
        lines[*place, (*curve,)][seed] = [*curve.values()]
    for place, values in lines.items():
        names = ("arm", "split", "metric", "epochs")
        yield dict(zip(names, place, strict=True)) | {"values": values}


def _unpacked(lines: Any) -> list[Record]:
    """The records of `_packed`."""
    records: dict[Any, Record] = {}
    for line in lines:
        arm, split, metric = line["arm"], line["split"], line["metric"]
        for seed, values in line["values"].items():
            for epoch, value in zip(line["epochs"], values, strict=True):
                record = Record(
                    arm=arm, seed=int(seed), split=split, epoch=epoch, metric=metric, value=value
                )
                if (*checked(record).values(),)[:-1] in records:
                    raise ValueError(f"there twice: {record}")
                records[(*record.values(),)[:-1]] = record
    if not records:
        raise ValueError("it holds no records")
    return [*records.values()]
