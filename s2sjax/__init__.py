"""Recurrent encoder-decoders in JAX and Flax, and paired ablations that stand up.

Data flows one way, each station a module of its own: ``tasks`` makes text pairs, ``vocab`` and
``data`` turn them into id arrays, ``models`` (on ``rnn``) into logits, ``losses``, ``metrics`` and
``decode`` into numbers. ``train`` is one run as pure functions, ``replicas`` lifts it over seeds
and devices, ``fit`` drives it, ``ablation`` pairs it, ``stats``, ``report`` and ``plots`` say what
came out.
"""

__version__ = "0.1.0"
