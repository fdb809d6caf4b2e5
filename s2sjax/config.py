"""Every setting of a run: frozen dataclasses, validated when built.

A config decides shapes and programs; a seed decides everything random. Both together decide every
number a run produces.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from s2sjax.errors import UserError, at_least
from s2sjax.taskconfig import Addition, Toy

SourceOrder = Literal["forward", "reversed", "digits_reversed", "operands_swapped", "doubled"]
TargetOrder = Literal["forward", "reversed"]
Justify = Literal["left", "right"]
Cell = Literal["lstm", "gru", "rnn"]
Initialiser = Literal["keras", "flax", "torch", "sutskever", "saitoh"]
Schedule = Literal["constant", "cosine", "inverse_sqrt", "halving"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Text:
    """How a pair of strings becomes two rows of ids."""

    source_order: Annotated[SourceOrder, tyro.conf.Suppress] = "forward"
    """Order of the source's characters. digits_reversed: each operand's digits, the operands stay;
    operands_swapped: the last operand first; doubled: the source twice, in its order. Set by the
    arms of an experiment, so it is no option of the command line."""
    target_order: TargetOrder = "forward"
    """Order of the target's characters: reversed writes the last one first."""
    justify: Justify | None = None
    """right: both strings are filled with spaces on the left to full width, left: on the right; a
    space is an ordinary character, read, predicted and scored. None: rows are filled with padding,
    never read or scored."""
    justify_when: Literal["before", "after"] = "before"
    """before: the justified string is put in its order, so that spaces move with it (the notebook,
    Keras, Saitoh). after: the order first, so that spaces stay on their side."""
    mask_spaces: bool = False
    """The encoder skips the spaces that justification wrote, as it always skips padding."""
    lag: int = 0
    """Spaces between the source and its end: time that passes and tells nothing."""
    source_eos: bool = True
    """End the source with the end-of-sequence symbol, after any reversal."""
    target_eos: bool = True
    """End the target with the end-of-sequence symbol; False: every target has full width."""
    start: Literal["bos", "first_target", "nothing"] = "bos"
    """bos: decoding starts from the begin symbol. first_target: the answer's first character is
    given to the decoder and never predicted. nothing: the decoder reads no symbols (repeat)."""

    def __post_init__(self) -> None:
        """Refuse combinations that cannot be."""
        at_least(0, self, "lag", most=1_000)
        if self.justify is None and self.mask_spaces:
            raise UserError("Text.mask_spaces needs Text.justify: nothing else writes the spaces")
        if self.justify is None and self.justify_when == "after":
            raise UserError("Text.justify_when needs Text.justify: nothing is justified")
        if self.justify is None and not self.target_eos:
            raise UserError(
                "Text.target_eos False needs Text.justify: answers of several lengths need an end"
            )


@dataclass(frozen=True)
class Model:
    """The encoder-decoder: recurrent layers -> state -> recurrent layers -> softmax."""

    cell: Cell = "lstm"
    """The recurrence of encoder and decoder."""
    hidden_size: int = 128
    """Units of every layer."""
    encoder_layers: int = 1
    """Recurrent layers that read, one above the other."""
    decoder_layers: int = 1
    """Recurrent layers that write."""
    decoder: Literal["state", "repeat"] = "state"
    """state: starts from the encoder's last state and reads the symbols written so far (Sutskever
    et al.). repeat: starts from zero and reads the encoder's last output at every step, no symbols
    (Keras' RepeatVector)."""
    peeky: bool = False
    """The encoder's last output goes to every decoder step and to the output layer (Saitoh)."""
    hand_over: Literal["carry", "hidden"] = "carry"
    """What starts a state decoder. hidden: an LSTM's cell c starts from zero (Saitoh)."""
    embed_dim: int | None = None
    """Width of the learned input embedding; None reads one-hot inputs."""
    init: Initialiser = "keras"
    """Initial weights as that library (or author) draws them, forget bias included."""
    precision: Precision = "float32"
    """Inputs of matrix products; accumulation, carry and parameters stay float32."""
    unroll: int = 1
    """Time steps an iteration of the compiled loop does."""

    def __post_init__(self) -> None:
        """Refuse sizes and combinations that cannot be."""
        at_least(1, self, "hidden_size", "unroll")
        at_least(1, self, "encoder_layers", "decoder_layers", most=100)
        if self.embed_dim is not None:
            at_least(1, self, "embed_dim")
        if self.hand_over == "hidden" and self.cell != "lstm":
            raise UserError(f"Model.hand_over hidden: Model.cell {self.cell} has nothing else")
        if self.hand_over == "hidden" and self.decoder == "repeat":
            raise UserError("Model.hand_over: Model.decoder repeat starts from zero")


@dataclass(frozen=True)
class Optimiser:
    """Adam (Kingma & Ba, 2015)."""

    learning_rate: float = 1e-3
    """Step size."""
    epsilon: float = 1e-7
    """Added to the root of the bias-corrected second moment. 1e-7 is Keras' value, which adds it
    before the correction."""
    clip: float | None = None
    """Largest global norm of a gradient; longer ones are scaled down (Pascanu et al., 2013)."""
    schedule: Schedule = "constant"
    """What the step size does. cosine: falls to 0 along half a wave (Loshchilov & Hutter, 2017).
    inverse_sqrt: after `warmup`, falls with the root of the updates (Vaswani et al., 2017).
    halving: from the middle of the training on halved, at once and at every further tenth
    (Luong et al., 2015: 10 epochs, halved after each from the fifth on)."""
    warmup: int = 0
    """Updates over which the step size first rises, linearly."""

    def __post_init__(self) -> None:
        """Refuse a step that cannot be."""
        at_least(0, self, "learning_rate", "epsilon", "warmup")
        if self.clip is not None:
            at_least(0, self, "clip")
        if self.schedule == "inverse_sqrt" and self.warmup == 0:
            raise UserError(
                "Optimiser.schedule inverse_sqrt falls from Optimiser.warmup on: set it"
            )


@dataclass(frozen=True)
class Training:
    """The budget, and how often to look."""

    epochs: int = 200
    """Passes over the training questions."""
    batch_size: int = 128
    """Examples an update; the last, partial batch of an epoch is kept."""
    eval_every: int = 5
    """Epochs from one evaluation on dev to the next; the last epoch is always evaluated."""
    checkpoint_every: int = 10
    """Epochs from one checkpoint to the next; the last epoch is always saved."""
    show_every: int = 25
    """Epochs from one look at a few answered dev questions to the next."""
    shown: int = 5
    """How many of them."""
    teacher_forcing: float = 1.0
    """Chance, for every token on its own, that the decoder reads the gold symbol; else it reads a
    draw from its own softmax (scheduled sampling, Bengio et al., 2015). 0 trains free-running."""
    teacher_forcing_end: float | None = None
    """Where that chance has gone, linearly, by the last update; None: it stays."""
    label_smoothing: float = 0.0
    """Share of the target's probability spread evenly over the vocabulary (Szegedy et al., 2016);
    reported losses are those of the gold symbol."""
    patience: int | None = None
    """Evaluations without a better dev loss after which a replica stops; what is scored are then
    its parameters at the best. None trains for all epochs and scores the last ones."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        at_least(1, self, "epochs", "batch_size", "eval_every", "checkpoint_every", "show_every")
        at_least(1, self, "shown", most=1_000)
        at_least(0, self, "teacher_forcing", "label_smoothing", most=1)
        if self.teacher_forcing_end is not None:
            at_least(0, self, "teacher_forcing_end", most=1)
        if self.patience is not None:
            at_least(1, self, "patience")

    @property
    def always_forced(self) -> bool:
        """Whether the decoder only ever reads gold symbols."""
        return self.teacher_forcing == 1 and self.teacher_forcing_end in (None, 1)


@dataclass(frozen=True)
class Run:
    """One run: with a seed, this decides every number."""

    task: Addition | Toy = field(default_factory=Addition)
    text: Text = field(default_factory=Text)
    model: Model = field(default_factory=Model)
    optim: Optimiser = field(default_factory=Optimiser)
    train: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        """Refuse parts that do not go together."""
        reads_nothing = self.model.decoder == "repeat"
        if reads_nothing != (self.text.start == "nothing"):
            raise UserError(
                "Text.start nothing and Model.decoder repeat go together: "
                f"not {self.text.start} and {self.model.decoder}"
            )
        if reads_nothing and not self.train.always_forced:
            raise UserError("Training.teacher_forcing: Model.decoder repeat reads no symbols")
        orders = ("digits_reversed", "operands_swapped")
        if isinstance(self.task, Toy) and self.text.source_order in orders:
            raise UserError(f"Text.source_order {self.text.source_order}: Toy has no operands")
        shortest = isinstance(self.task, Toy) and self.task.max_length == 1
        if shortest and self.text.start == "first_target":
            raise UserError("Text.start first_target gives all away where Toy.max_length is 1")
