"""The results.json of a finished run: read it, refuse a damaged one, select numbers from it.

In the file, the records of an arm, a split and a metric are one line, a `Series`, so that a
committed file stays small. Where a selection is empty, a ValueError names what there is.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from s2sjax.errors import UserError
from s2sjax.report.stats import Comparison

Results = Mapping[str, Any]  # a `Content`, and what else a run has noted, such as "seconds"
REMEDY = "restore it, or delete it and run the experiment again"
PLACE = ("arm", "seed", "split", "epoch", "metric")  # differs from record to record
_hints = cache(get_type_hints)


class Record(TypedDict):
    """One measurement."""

    arm: str
    seed: int
    split: str
    epoch: int
    metric: str
    value: float


class Content(TypedDict):
    """What every results.json has. A run of one arm has no comparisons."""

    experiment: str
    preset: str
    config: dict
    config_hash: str
    environment: dict
    records: list[Record]
    comparisons: list[Comparison]


class Series(TypedDict):
    """The records of an arm, split and metric: ``{seed: [value at each epoch]}``."""

    arm: str
    split: str
    metric: str
    epochs: list[int]
    values: dict[str, list[float]]


def load_results(path: Path) -> Results:
    """Reads a results.json; one that is missing or damaged is a UserError."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        _check(results, dict, "its content")
        if "series" in results:
            results["records"] = _unpacked(results.pop("series"))
        _check(results, Content, "its content")
        places = Counter(tuple(r[key] for key in PLACE) for r in results["records"])
        if not places:
            raise ValueError("it holds no records")
        if (twice := places.most_common(1)[0])[1] > 1:
            raise ValueError(f"it holds two records of {twice[0]}")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the experiment that writes it.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or one of the checks
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path} cannot be used, {why}: {REMEDY}") from error
    return results


def _check(value: Any, kind: Any, where: str) -> None:
    """Raises ValueError unless a JSON value, and every item in it, has the type and is finite."""
    if is_typeddict(kind) or is_dataclass(kind):
        _check(value, dict, where)
        for key, of in _hints(kind).items():
            if key not in value:
                raise ValueError(f"{where} has no {key!r}")
            _check(value[key], of, f"{where}: {key}")
        return
    origin, of = get_origin(kind), get_args(kind)
    if origin is UnionType:  # all of them here are "or None"
        return None if value is None else _check(value, of[0], where)
    expected = list if origin is tuple else origin or kind
    allowed = (int, float) if expected is float else (expected,)
    if type(value) not in allowed:  # True is an int for isinstance, but no seed
        raise ValueError(f"{where} is of type {type(value).__name__}, not {expected.__name__}")
    if expected is float and not abs(value) <= sys.float_info.max:  # NaN is not, either
        raise ValueError(f"{where} is not a finite number")
    if origin is tuple and len(value) != len(of):
        raise ValueError(f"{where} has {len(value)} items, not {len(of)}")
    for i, item in value.items() if origin is dict else enumerate(value if of else ()):
        _check(item, of[-1], f"{where}[{i}]")


def arms(results: Results) -> list[str]:
    """Names of the arms, in the order of their first record."""
    return list(dict.fromkeys(record["arm"] for record in results["records"]))


def series(results: Results, arm: str, metric: str, split: str) -> dict[int, dict[int, float]]:
    """``{seed: {epoch: value}}`` of one arm, seeds and epochs ascending."""
    curves: dict[int, dict[int, float]] = defaultdict(dict)
    for record in results["records"]:
        if (record["arm"], record["metric"], record["split"]) == (arm, metric, split):
            curves[record["seed"]][record["epoch"]] = record["value"]
    if not curves:
        names = [[*dict.fromkeys(r[key] for r in results["records"])] for key in PLACE]
        raise ValueError(
            f"No records of arm {arm!r}, metric {metric!r}, split {split!r}; there are arms "
            f"{names[0]}, metrics {names[4]} and splits {names[2]}."
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
    """Results as JSON with a series a line, so that two files can be compared by line."""
    others = {name: value for name, value in results.items() if name != "records"}
    heads = [f"{json.dumps(name)}: {json.dumps(others[name], indent=1)}" for name in others]
    lines = [json.dumps(line, allow_nan=False) for line in _packed(results["records"])]
    return "{\n" + ",\n".join([*heads, '"series": [\n' + ",\n".join(lines) + "\n]"]) + "\n}\n"


def _packed(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Records as `Series`; seeds with the same epochs share one."""
    curves: dict[Any, dict[int, float]] = defaultdict(dict)
    for r in records:
        curves[r["arm"], r["split"], r["metric"], r["seed"]][r["epoch"]] = r["value"]
    lines: dict[Any, dict[int, list[float]]] = defaultdict(dict)
    for (*place, seed), curve in curves.items():
        lines[*place, (*curve,)][seed] = [*curve.values()]
    for place, values in lines.items():
        names = ("arm", "split", "metric", "epochs")
        yield dict(zip(names, place, strict=True)) | {"values": values}


def _unpacked(lines: Any) -> list[dict[str, Any]]:
    """The records of `_packed`; raises ValueError where seeds or epochs do not fit the values."""
    _check(lines, list[Series], "series")
    records = []
    for i, line in enumerate(lines):
        names = {name: line[name] for name in ("arm", "split", "metric")}
        for seed, values in line["values"].items():
            if not seed.isdecimal() or len(values) != len(line["epochs"]):
                raise ValueError(f"series[{i}] is damaged at seed {seed!r}")
            for epoch, value in zip(line["epochs"], values, strict=True):
                records.append(names | {"seed": int(seed), "epoch": epoch, "value": value})
    return records
