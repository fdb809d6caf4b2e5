"""Every setting of a run: frozen dataclasses, validated when built.

A config decides shapes and programs; a seed decides everything random. Both together decide every
number a run produces.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from s2sjax.errors import UserError, at_least
from s2sjax.taskconfig import Addition, Sentences, TaskConfig, Toy

SourceOrder = Literal["forward", "reversed", "digits_reversed", "operands_swapped", "doubled"]
TargetOrder = Literal["forward", "reversed"]
Justify = Literal["left", "right"]
Cell = Literal["lstm", "gru", "rnn"]
Initialiser = Literal["keras", "flax", "torch", "sutskever", "saitoh"]
Schedule = Literal["constant", "cosine", "inverse_sqrt", "halving"]
Attention = Literal["dot", "general", "additive"]
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
    hand_over: Literal["carry", "hidden", "learned", "zero"] = "carry"
    """What starts a state decoder: the bridge. carry: the encoder's last carries. hidden: the same,
    but an LSTM's cell c starts from zero (Saitoh). learned: every layer's h is an affine map and
    tanh of the top encoder layer's, c starts from zero (Bahdanau et al.). zero: nothing."""
    directions: Literal[1, 2] = 1
    """2: the encoder also reads from the last symbol to the first; each direction has half of the
    units (Schuster & Paliwal, 1997)."""
    attention: Attention | None = None
    """How decoder states are held against the encoder's outputs: see `attention`. None: the decoder
    sees no more of the source than what is handed over."""
    attend: Literal["after", "feeding", "before"] = "after"
    """When. after: the new state attends (Luong et al.). feeding: so, and its readout joins the
    next step's input (Luong et al., section 3.3). before: the top layer's state before the
    step attends, and the step reads the context (Bahdanau et al.)."""
    residual: bool = False
    """What a layer above the first reads is added to what it gives (Wu et al., 2016)."""
    embed_dim: int | None = None
    """Width of the learned input embedding; None reads one-hot inputs."""
    tied_output: bool = False
    """The output layer's matrix is the decoder's embedding (Press & Wolf, 2017); `init` torch draws
    that too large for an output layer."""
    dropout: float = 0.0
    """Chance that an entry is dropped on its way up: of an embedding, between layers, and into the
    output layer (Zaremba et al., 2014); drawn for every step."""
    context_dropout: float = 0.0
    """The same of the context that attention gives."""
    recurrent_dropout: float = 0.0
    """The same of the hidden state in the recurrent product, one draw for all steps of a sequence
    (variational; Gal & Ghahramani, 2016)."""
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
        at_least(0, self, *self.rates, most=0.99)
        if self.hand_over == "hidden" and self.cell != "lstm":
            raise UserError(f"Model.hand_over hidden: Model.cell {self.cell} has nothing else")
        if self.hand_over != "carry" and self.decoder == "repeat":
            raise UserError("Model.hand_over: Model.decoder repeat starts from zero")
        if self.hand_over == "zero" and self.attention is None and not self.peeky:
            raise UserError(
                "Model.hand_over zero leaves a decoder without Model.attention no source"
            )
        if self.directions == 2 and self.hidden_size % 2:
            raise UserError(
                f"Model.directions 2 halve Model.hidden_size: {self.hidden_size} is odd"
            )
        if self.residual and max(self.encoder_layers, self.decoder_layers) == 1:
            raise UserError("Model.residual needs more than one layer in encoder or decoder")
        if self.residual and (self.peeky or self.decoder == "repeat"):
            raise UserError("Model.residual: a peeky or repeat decoder reads a layer's own state")
        self._check_attention()
        if self.tied_output and self.embed_dim != self.hidden_size:
            raise UserError(
                "Model.tied_output needs Model.embed_dim equal to Model.hidden_size: "
                f"{self.embed_dim} is not {self.hidden_size}"
            )
        if self.tied_output and (self.peeky or self.decoder == "repeat"):
            raise UserError("Model.tied_output: a peeky or repeat decoder has another output layer")

    def _check_attention(self) -> None:
        """Refuse what attention cannot go with, and what cannot be without it."""
        if self.attention is None:
            if self.attend != "after":
                raise UserError(f"Model.attend {self.attend} needs Model.attention")
            if self.context_dropout:
                raise UserError("Model.context_dropout needs Model.attention")
        elif self.decoder == "repeat" or self.peeky:
            raise UserError(
                "Model.attention: a peeky or repeat decoder has another view of the source"
            )

    @property
    def rates(self) -> dict[str, float]:
        """The chances to drop, by setting."""
        names = ("dropout", "context_dropout", "recurrent_dropout")
        return {name: getattr(self, name) for name in names}


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
            if self.clip == 0:
                raise UserError("Optimiser.clip must be above 0: it would take away every update")
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
    """Share of the target's probability spread evenly over the vocabulary (Szegedy et al., 2016).
    The losses reported while training (`epoch_loss`) are smoothed too, those of dev, train and test
    questions are the gold symbol's."""
    patience: int | None = None
    """Evaluations without a better dev loss after which a replica stops. On train and test
    questions its parameters at the best are then scored, recorded under the epoch at which the last
    replica stopped. None trains for all epochs and scores the last parameters."""

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

    task: TaskConfig = field(default_factory=Addition)
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
        if not isinstance(self.task, Addition) and self.text.source_order in orders:
            kind = type(self.task).__name__
            raise UserError(f"Text.source_order {self.text.source_order}: {kind} has no operands")
        shortest = isinstance(self.task, Toy) and self.task.max_length == 1
        if shortest and self.text.start == "first_target":
            raise UserError("Text.start first_target gives all away where Toy.max_length is 1")


@dataclass(frozen=True)
class Translation:
    """One run on sentence pairs from files: with a seed, this decides every number.

    `Training.batch_size` is how many sentences are translated at once; how many are trained on at
    once follows from `Sentences.tokens_per_batch`.
    """

    sentences: Sentences
    model: Model = field(default_factory=Model)
    optim: Optimiser = field(default_factory=Optimiser)
    train: Training = field(default_factory=Training)
    seed: int = 0
    """Decides the initial weights, the order of the pairs and every draw."""

    def __post_init__(self) -> None:
        """Refuse parts that do not go together."""
        if self.model.decoder == "repeat":
            raise UserError("Model.decoder repeat reads no symbols: a sentence needs state")
        if self.model.peeky:
            raise UserError(
                "Model.peeky is for sums: sentences look back at the source by Model.attention"
            )
        at_least(0, self, "seed", most=2**31 - 1)
