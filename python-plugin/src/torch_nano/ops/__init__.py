"""The operators: one file each, and one line each here."""

from ..ir.operator import Operator
from ..library.definition import FUNCTIONS as FUNCTIONS
from .activation import Activation
from .add import Add
from .argmax import Argmax
from .average_pool2d import AveragePool2d
from .concat import Concat
from .conv2d import Conv2d
from .conv_transpose2d import ConvTranspose2d
from .depthwise_conv2d import DepthwiseConv2d
from .embedding import Embedding
from .expression import Expression
from .fully_connected import FullyConnected
from .gru import Gru
from .history import History
from .layer_norm import LayerNorm
from .log_softmax import LogSoftmax
from .lstm import Lstm
from .masked_softmax import MaskedSoftmax
from .matmul import Matmul
from .max_pool2d import MaxPool2d
from .move import Move
from .mul import Mul
from .prelu import Prelu
from .requantize import Requantize
from .resize_bilinear import ResizeBilinear
from .rnn import Rnn
from .softmax import Softmax
from .sub import Sub
from .table import Table

OPERATORS: tuple[type[Operator], ...] = (
    Activation,
    Add,
    Argmax,
    AveragePool2d,
    Concat,
    Conv2d,
    ConvTranspose2d,
    DepthwiseConv2d,
    Embedding,
    Expression,
    FullyConnected,
    Gru,
    History,
    LayerNorm,
    Lstm,
    LogSoftmax,
    MaskedSoftmax,
    Matmul,
    MaxPool2d,
    Move,
    Mul,
    Prelu,
    Requantize,
    Rnn,
    ResizeBilinear,
    Softmax,
    Sub,
    Table,
)
