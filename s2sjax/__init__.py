"""Recurrent encoder-decoders in JAX and Flax, and paired ablations that stand up.

Text pairs become batches of ids in ``data``, ids become logits in ``model``. ``train`` joins both
into one run, a pure function of settings and seed; ``study`` maps it over arms and seeds;
``report`` and ``analysis`` say what came out, and why.
"""

__version__ = "0.1.0"
