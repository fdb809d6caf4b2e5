"""Recurrent encoder-decoders in JAX and Flax, and paired ablations that stand up.

Text pairs become batches of ids in ``data``, ids become logits in ``model``. ``train`` joins both
into one run, a pure function of settings and seed; ``study`` maps it over arms and seeds;
``report`` and ``analysis`` say what came out, and why.

What a notebook needs can be imported from here; it is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2sjax.config import Model as Model
    from s2sjax.config import Optimiser as Optimiser
    from s2sjax.config import Text as Text
    from s2sjax.config import Training as Training
    from s2sjax.data.tasks import Addition as Addition
    from s2sjax.data.tasks import Dates as Dates
    from s2sjax.data.tasks import Sentences as Sentences
    from s2sjax.data.tasks import Task as Task
    from s2sjax.data.tasks import Toy as Toy
    from s2sjax.errors import UserError as UserError
    from s2sjax.model.beam import Beam as Beam
    from s2sjax.model.decode import Greedy as Greedy
    from s2sjax.model.decode import Sampling as Sampling
    from s2sjax.study.ablate import Outcome as Outcome
    from s2sjax.study.ablate import ablate as ablate
    from s2sjax.train.replicas import use_all_cores as use_all_cores
    from s2sjax.train.run import Run as Run
    from s2sjax.train.trained import Trained as Trained

__version__ = "0.1.0"

_HOMES = {
    "config": ("Model", "Optimiser", "Text", "Training"),
    "data.tasks": ("Addition", "Dates", "Sentences", "Task", "Toy"),
    "errors": ("UserError",),
    "model.beam": ("Beam",),
    "model.decode": ("Greedy", "Sampling"),
    "study.ablate": ("Outcome", "ablate"),
    "train.replicas": ("use_all_cores",),
    "train.run": ("Run",),
    "train.trained": ("Trained",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [*_HOME_OF]  # pyrefly: ignore


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 's2sjax' has no attribute {name!r}")
    return getattr(import_module(f"s2sjax.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
