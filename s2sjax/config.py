"""Every setting of a run: frozen dataclasses, validated when built.

A config decides shapes and programs, a seed decides everything random.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from s2sjax.errors import UserError, check_range

Unit = Literal["characters", "words", "subwords"]
SourceOrder = Literal["forward", "reversed", "digits_reversed", "operands_swapped", "doubled"]
Justify = Literal["left", "right"]
Initialiser = Literal["keras", "flax", "torch", "sutskever", "saitoh"]
Attention = Literal["dot", "general", "additive"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Text:
    """How a pair of strings becomes two rows of ids."""

    source_unit: Unit = "characters"  # What a symbol of the source is. subwords: byte-pair encoding
    target_unit: Unit = "characters"  # What a symbol of the target is
    source_order: Annotated[SourceOrder, tyro.conf.Suppress] = "forward"
    """Order of the source's symbols. digits_reversed: the digits of each operand are reversed;
    operands_swapped: the last operand comes first; doubled: the source comes twice. The arms of an
    experiment set it, so it is no option of the command line."""
    target_order: Literal["forward", "reversed"] = "forward"  # reversed: the last symbol first
    source_justify: Justify | None = None
    """right: spaces on the left fill sources to full width; left: spaces on the right. Such a space
    is an ordinary character. None: padding fills rows, and the encoder never reads it."""
    target_justify: Justify | None = None  # The same for targets; these spaces are scored
    justify_when: Literal["before", "after"] = "before"
    """before: justify, then reorder, so that spaces move too (the notebook, Keras, Saitoh). after:
    reorder, then justify, so that spaces stay on their side."""
    mask_spaces: bool = False  # The encoder skips the spaces of justified sources
    lag: int = 0  # Spaces between the source and its end: steps without information
    source_eos: bool = True  # End the source with the end-of-sequence symbol, after any reversal
    target_eos: bool = True  # End the target with that symbol; False: all targets have full width
    start: Literal["bos", "first_target", "nothing"] = "bos"
    """What the decoder reads first. bos: the begin symbol. first_target: the answer's first symbol,
    which is never predicted. nothing: it reads no symbols (Model.decoder repeat)."""
    cut: Literal["punctuation", "whitespace"] = "punctuation"
    """Where words are cut: around every punctuation mark as well, or at whitespace only."""
    lower_case: bool = True  # Read the capitals of words as small letters
    min_count: int = 1  # A symbol that occurs less often in training is unknown
    source_size: int = 10_000  # Most symbols of a source vocabulary made from training pairs
    target_size: int = 10_000  # The same of the target's
    max_length: int = 80  # Most symbols of a side of a pair from a file; longer ones are left out

    def __post_init__(self) -> None:
        check_range(0, self, "lag", most=1_000)
        check_range(1, self, "min_count", "max_length")
        for side in ("source", "target"):
            unit = getattr(self, f"{side}_unit")
            check_range(260 if unit == "subwords" else 5, self, f"{side}_size")
            if unit != "characters" and getattr(self, f"{side}_justify"):
                raise UserError(f"Text.{side}_justify needs Text.{side}_unit 'characters'")
        of_digits = self.source_order in ("digits_reversed", "operands_swapped")
        if self.source_unit != "characters" and (self.lag or of_digits):
            what = "lag" if self.lag else f"source_order '{self.source_order}'"
            raise UserError(f"Text.{what} needs Text.source_unit 'characters'")
        if self.mask_spaces and not self.source_justify:
            raise UserError("Text.mask_spaces needs Text.source_justify")
        if self.justify_when == "after" and not (self.source_justify or self.target_justify):
            needed = "Text.source_justify or Text.target_justify"
            raise UserError(f"Text.justify_when 'after' needs {needed}")
        if not (self.target_eos or self.target_justify):
            raise UserError("Text.target_eos False needs Text.target_justify")
        words = "words" in (self.source_unit, self.target_unit)
        if not words and (self.cut, self.lower_case) != ("punctuation", True):
            needed = "Text.source_unit or Text.target_unit 'words'"
            raise UserError(f"Text.cut and Text.lower_case need {needed}")


@dataclass(frozen=True)
class Model:
    """The encoder-decoder: recurrent layers -> state -> recurrent layers -> softmax."""

    cell: str = "lstm"  # lstm, gru, rnn, or a `Cell` of your own, such as my_module.MY_CELL
    hidden_size: int = 128  # Units of every layer
    encoder_layers: int = 1  # Recurrent layers of the encoder
    decoder_layers: int = 1  # Recurrent layers of the decoder
    decoder: Literal["state", "repeat"] = "state"
    """state: starts from the encoder's last state and reads the symbols written so far (Sutskever
    et al.). repeat: starts from zero and reads only the encoder's last output, at every step
    (Keras' RepeatVector)."""
    peeky: bool = False  # Every decoder step and the output layer read the encoder's last output
    decoder_init: Literal["carry", "hidden", "learned", "zero"] = "carry"
    """The initial carries of a state decoder. carry: the encoder's last ones. hidden: the same with
    an LSTM's cell state c zero (Saitoh). learned: h of every layer is tanh of an affine map of the
    top encoder layer's h, and c is zero (Bahdanau et al.). zero: all are zero."""
    directions: Literal[1, 2] = 1
    """2: the encoder also reads from the last symbol to the first; each direction has half of the
    units (Schuster & Paliwal, 1997)."""
    attention: Attention | None = None  # The score of the encoder's outputs; None: no attention
    attend: Literal["after", "feeding", "before"] = "after"
    """When a step attends. after: the step's new state is the query (Luong et al.). feeding: the
    same, and the next step reads the readout (Luong et al., section 3.3). before: the top layer's
    last state is the query, and the step reads the context (Bahdanau et al.)."""
    embed_dim: int | None = None  # Width of the learned input embedding; None reads one-hot inputs
    dropout: float = 0.0
    """Probability to drop an activation of an embedding, between layers, and before the output
    layer (Zaremba et al., 2014); drawn at every step."""
    recurrent_dropout: float = 0.0
    """The same for the hidden state in the recurrent product, with one draw for all steps of a
    sequence (variational dropout; Gal & Ghahramani, 2016)."""
    init: Initialiser = "keras"  # Initial weights and biases as that library or author draws them
    precision: Precision = "float32"  # Of the factors of matrix products; all else is float32
    unroll: int = 1  # Time steps per iteration of the compiled loop

    def __post_init__(self) -> None:
        check_range(1, self, "hidden_size", "unroll", "embed_dim")
        check_range(1, self, "encoder_layers", "decoder_layers", most=100)
        check_range(0, self, "dropout", "recurrent_dropout", most=0.99)
        if self.decoder_init != "carry" and self.decoder == "repeat":
            raise UserError("Model.decoder 'repeat' cannot use Model.decoder_init")
        if self.decoder_init == "zero" and not (self.attention or self.peeky):
            raise UserError("Model.decoder_init 'zero' needs Model.attention or Model.peeky")
        if self.directions == 2 and self.hidden_size % 2:
            even = f"an even Model.hidden_size, not {self.hidden_size}"
            raise UserError(f"Model.directions 2 needs {even}")
        if self.attend != "after" and not self.attention:
            raise UserError(f"Model.attend '{self.attend}' needs Model.attention")
        if self.attention and (self.decoder == "repeat" or self.peeky):
            raise UserError("Model.attention cannot use Model.decoder 'repeat' or Model.peeky")

    @property
    def rates(self) -> dict[str, float]:
        """Drop probabilities by setting."""
        return {"dropout": self.dropout, "recurrent_dropout": self.recurrent_dropout}


@dataclass(frozen=True)
class Optimiser:
    """Adam (Kingma & Ba, 2015)."""

    learning_rate: float = 1e-3  # Step size
    epsilon: float = 1e-7
    """Added to the root of the bias-corrected second moment (Keras adds its 1e-7 before the
    correction)."""
    clip: float | None = None  # Largest global norm of a gradient (Pascanu et al., 2013)
    schedule: Literal["constant", "cosine", "inverse_sqrt", "halving"] = "constant"
    """How the step size changes. cosine: falls to 0 along half a wave (Loshchilov & Hutter, 2017).
    inverse_sqrt: after `warmup`, falls with the root of the updates (Vaswani et al., 2017).
    halving: halved at the middle of training and at every further tenth (Luong et al., 2015)."""
    warmup: int = 0  # Updates over which the step size first rises, linearly

    def __post_init__(self) -> None:
        check_range(0, self, "learning_rate", "epsilon", "warmup", "clip")
        if self.clip == 0:
            raise UserError("Optimiser.clip must be above 0")
        if self.schedule == "inverse_sqrt" and self.warmup == 0:
            raise UserError("Optimiser.schedule 'inverse_sqrt' needs Optimiser.warmup above 0")


@dataclass(frozen=True)
class Training:
    """The budget, and how often to look."""

    epochs: int = 200  # Passes over the training questions
    batch_size: int = 128
    """Examples of an update where rows have one width, and examples scored at once. The last,
    partial batch of an epoch is a full update, as in Keras: each of its symbols weighs more."""
    tokens_per_batch: int | None = None
    """Most positions of a batch; source, target and padding count. Rows of similar lengths then
    share batches (length buckets). None: all rows are padded to one width."""
    buckets: int = 6  # Most shapes of batches with `tokens_per_batch`; each is compiled
    eval_every: int = 5  # Epochs from one evaluation on dev to the next; the last has one, too
    checkpoint_every: int = 10  # Epochs from one checkpoint to the next; the last has one, too
    show_every: int = 25  # Epochs from one display of answered dev questions to the next
    shown: int = 5  # Questions of a display
    teacher_forcing: float = 1.0
    """Chance, drawn for every token, that the decoder reads the gold symbol; else it reads a draw
    from its own softmax (scheduled sampling, Bengio et al., 2015). 0 trains free-running."""
    teacher_forcing_end: float | None = None  # That chance at the last update; linear in between
    label_smoothing: float = 0.0
    """Share of the target's probability spread evenly over the vocabulary (Szegedy et al., 2016).
    It is part of the loss while training (`epoch_loss`), not of the losses of scored splits."""
    patience: int | None = None
    """Early stopping: a replica stops after so many evaluations without a better dev loss. Its best
    parameters are scored, under the epoch at which the last replica stopped. None: train for all
    epochs and score the last parameters."""

    def __post_init__(self) -> None:
        check_range(1, self, "epochs", "batch_size", "tokens_per_batch", "patience")
        check_range(1, self, "eval_every", "checkpoint_every", "show_every")
        check_range(1, self, "shown", most=1_000)
        check_range(1, self, "buckets", most=100)
        check_range(0, self, "teacher_forcing", "teacher_forcing_end", "label_smoothing", most=1)

    @property
    def always_forced(self) -> bool:
        """Whether the decoder only ever reads gold symbols."""
        return self.teacher_forcing == 1 and self.teacher_forcing_end in (None, 1)
