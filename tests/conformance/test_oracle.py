"""The oracle itself, against cases small enough to be worked out by hand."""

import numpy as np
import numpy.typing as npt
import pytest

from . import tflm
from .model import Float32, Int8, Int32, Quantization
from .sampling import int8_input, window

HALF, UNIT = Quantization(0.5, 0), Quantization(1.0, 0)


def int8(values: npt.ArrayLike, *shape: int) -> Int8:
    """An int8 array; without `shape` that of the values."""
    array = np.array(values, np.int8)
    return array.reshape(shape) if shape else array


def bias(*values: int) -> Int32:
    """An int32 bias."""
    return np.array(values, np.int32)


def scales(*values: float) -> Float32:
    """Weight scales."""
    return np.array(values, np.float32)


def test_conv2d() -> None:
    # x - zero_point is [[2, 4], [6, 8]]; 2 * 1 - 4 * 1 + 6 * 2 + 8 * 3 + 2 = 36; multipliers are 1/8 and 1/4.
    # 36 / 8 = 4.5 rounds away from zero to 5 (negated to -5), 36 / 4 = 9; then the zero point, 3.
    x = int8([1, 3, 5, 7], 1, 2, 2, 1)
    kernel = np.array([[1, -1], [2, 3]])
    weights = int8([kernel, -kernel, kernel], 3, 2, 2, 1)
    arguments = (
        x,
        weights,
        bias(2, -2, 2),
        Quantization(0.5, -1),
        scales(0.25, 0.25, 0.5),
        Quantization(1.0, 3),
    )
    assert tflm.conv2d(*arguments).tolist() == [[[[8, -2, 12]]]]
    assert tflm.conv2d(*arguments, activation="relu").tolist() == [[[[8, 3, 12]]]]
    assert tflm.conv2d(*arguments, activation="relu6").tolist() == [[[[8, 3, 9]]]]


def test_conv2d_per_tensor_scale() -> None:
    x, weights = int8([1, 2], 1, 1, 2, 1), int8([1, 2], 2, 1, 1, 1)
    y = tflm.conv2d(x, weights, bias(0, 0), UNIT, scales(2.0), UNIT)
    assert y.tolist() == [[[[2, 4], [4, 8]]]]


def test_conv2d_padding_is_zero_in_the_reals() -> None:
    # Only the kernel's centre, 5, meets the one pixel, 12 - 10 = 2.
    x, weights = int8([12], 1, 1, 1, 1), int8(range(1, 10), 1, 3, 3, 1)
    arguments = (x, weights, bias(0), Quantization(1.0, 10), scales(1.0), UNIT)
    assert tflm.conv2d(*arguments, padding=(1, 1, 1, 1)).tolist() == [[[[10]]]]
    assert tflm.conv2d(*arguments, padding="same").tolist() == [[[[10]]]]


def test_conv2d_stride_and_dilation() -> None:
    # Places 0 and 2 from 0 on, 2 and 4 from 2 on: 1 * 1 + 3 * 10, 3 * 1 + 5 * 10.
    x, weights = int8([1, 2, 3, 4, 5], 1, 1, 5, 1), int8([1, 10], 1, 1, 2, 1)
    y = tflm.conv2d(x, weights, bias(0), UNIT, scales(1.0), UNIT, stride=(1, 2), dilation=(1, 2))
    assert y.ravel().tolist() == [31, 53]


def test_conv2d_groups() -> None:
    x, weights = int8([3, 5], 1, 1, 1, 2), int8([1, 2, 1, 2], 4, 1, 1, 1)
    y = tflm.conv2d(x, weights, bias(0, 0, 0, 0), UNIT, scales(1, 1, 1, 1), UNIT)
    assert y.ravel().tolist() == [3, 6, 5, 10]


def test_conv_transpose2d() -> None:
    # x - zero_point is 2, 3: 2 * (1, 10, 5) from 0 on and 3 * (1, 10, 5) from 2 on, plus 1.
    x, weights = int8([3, 4], 1, 1, 2, 1), int8([1, 10, 5], 1, 1, 3, 1)
    arguments = (x, weights, bias(1), Quantization(1.0, 1), scales(1.0), UNIT)
    assert tflm.conv_transpose2d(*arguments, stride=(1, 2)).ravel().tolist() == [3, 21, 14, 31, 16]
    y = tflm.conv_transpose2d(*arguments, stride=(1, 2), padding=(0, 0, 1, 2), activation="relu6")
    assert y.ravel().tolist() == [6, 6]


def test_depthwise_conv2d() -> None:
    # Two channels, depth multiplier 2: output 2 c + j is (input c * weight 2 c + j + bias) * scale.
    x, weights = int8([3, 5], 1, 1, 1, 2), int8([1, 2, -3, 4], 1, 1, 1, 4)
    arguments = (x, weights, bias(0, 1, 0, 1), UNIT, scales(1, 1, 1, 0.5), UNIT)
    # 21 / 2 = 10.5 rounds to 11.
    assert tflm.depthwise_conv2d(*arguments).ravel().tolist() == [3, 7, -15, 11]
    assert tflm.depthwise_conv2d(*arguments, activation="relu6").ravel().tolist() == [3, 6, 0, 6]


def test_depthwise_conv2d_stride_padding_and_dilation() -> None:
    # Padded x: 0 1 2 3 4 0; places 0 and 2, 3 and 5: 0 * 1 + 2 * 10, 3 * 1 + 0 * 10.
    x, weights = int8([1, 2, 3, 4], 1, 1, 4, 1), int8([1, 10], 1, 1, 2, 1)
    y = tflm.depthwise_conv2d(
        x, weights, bias(0), UNIT, scales(1.0), UNIT, stride=(1, 3), padding=(0, 0, 1, 1), dilation=(1, 2)
    )
    assert y.ravel().tolist() == [20, 3]


def test_fully_connected() -> None:
    # x - zero_point is (2, -1): 2 * 1 - 1 * 2 + 10 = 10 and 2 * 3 - 1 * 4 - 7 = -5.
    x, weights = int8([[3, 0]]), int8([[1, 2], [3, 4]])
    x_quantization, y_quantization = Quantization(0.5, 1), Quantization(0.25, -100)
    y = tflm.fully_connected(x, weights, bias(10, -7), x_quantization, scales(0.25), y_quantization)
    # Times 1/2: 5, and -2.5: without a shift after it, the high multiplication rounds ties up, to -2.
    assert y.tolist() == [[-95, -102]]
    y = tflm.fully_connected(x, weights, bias(10, -7), x_quantization, scales(0.25, 1.0), y_quantization)
    assert y.tolist() == [[-95, -110]]


def test_add() -> None:
    # Reals 1.5 + 0.5 = 2, -1.5 + 6 = 4.5 and 5 + 6 = 11, in units of 1/8.
    a, b = int8([3, -3, 10]), int8([3, 25, 25])
    arguments = (a, b, HALF, Quantization(0.25, 1), Quantization(0.125, -4))
    assert tflm.add(*arguments).tolist() == [12, 32, 84]
    assert tflm.add(*arguments, activation="relu6").tolist() == [12, 32, 44]


def test_sub() -> None:
    # Reals 1.5 - 0.5 = 1, -1.5 - 6 = -7.5 and 5 - 6 = -1, in units of 1/8.
    a, b = int8([3, -3, 10]), int8([3, 25, 25])
    arguments = (a, b, HALF, Quantization(0.25, 1), Quantization(0.125, -4))
    assert tflm.sub(*arguments).tolist() == [4, -64, -12]
    assert tflm.sub(*arguments, activation="relu").tolist() == [4, -4, -4]


def test_matmul() -> None:
    # (2 - 1)(3 + 1) + (5 - 1)(-2 + 1) = 0, and (2 - 1)(1 + 1) + (5 - 1)(4 + 1) = 22, times 1/8: 2.75.
    a, b = int8([[[2, 5]]]), int8([[[3, 1], [-2, 4]]])
    quantizations = (Quantization(0.5, 1), Quantization(0.5, -1), Quantization(2.0, 10))
    assert tflm.matmul(a, b, *quantizations, transpose_b=False).tolist() == [[[10, 13]]]
    assert tflm.matmul(a, b.transpose(0, 2, 1), *quantizations, transpose_b=True).tolist() == [[[10, 13]]]


def test_mul() -> None:
    # Reals 1.5 * 0.5 = 0.75, -1.5 * 6 = -9 and 5 * 6 = 30, in units of 1/4.
    a, b = int8([3, -3, 10]), int8([3, 25, 25])
    arguments = (a, b, HALF, Quantization(0.25, 1), Quantization(0.25, 4))
    assert tflm.mul(*arguments).tolist() == [7, -32, 124]
    assert tflm.mul(*arguments, activation="relu").tolist() == [7, 4, 124]
    # 1/4 is 0.5 and 1 in steps of the multiplier's shift: halves are rounded twice.
    assert tflm.mul(int8([1, -1]), int8([1]), HALF, HALF, UNIT).tolist() == [1, 0]


def test_max_pool() -> None:
    x = int8([1, -5, 3, -7], 1, 2, 2, 1)
    assert tflm.max_pool(x, UNIT, (2, 2)).ravel().tolist() == [3]
    assert tflm.max_pool(x, UNIT, (2, 2), stride=(2, 2), padding=(1, 1, 1, 1)).ravel().tolist() == [
        1,
        -5,
        3,
        -7,
    ]
    assert tflm.max_pool(x, UNIT, (1, 2), padding="same").ravel().tolist() == [1, -5, 3, -7]
    assert tflm.max_pool(x, UNIT, (1, 1), activation="relu").ravel().tolist() == [1, 0, 3, 0]


def test_average_pool() -> None:
    # 1.5 and -1.5 round away from zero, whatever the zero point.
    assert tflm.average_pool(int8([1, 2], 1, 1, 2, 1), Quantization(1.0, 9), (1, 2)).ravel().tolist() == [2]
    assert tflm.average_pool(int8([-1, -2], 1, 1, 2, 1), Quantization(1.0, 9), (1, 2)).ravel().tolist() == [
        -2
    ]
    # Windows (4 6), (4 6 9), (6 9): 5, 6.33, 7.5.
    x = int8([4, 6, 9], 1, 1, 3, 1)
    assert tflm.average_pool(x, UNIT, (1, 3), padding="same").ravel().tolist() == [5, 6, 8]
    assert tflm.average_pool(x, UNIT, (1, 3), padding=(0, 0, 1, 1)).ravel().tolist() == [5, 6, 8]
    # With the padding, of value 1, counted: 11 / 3, 19 / 3, 16 / 3.
    counted = tflm.average_pool(x, Quantization(1.0, 1), (1, 3), padding=(0, 0, 1, 1), count_padding=True)
    assert counted.ravel().tolist() == [4, 6, 5]
    assert tflm.average_pool(x, UNIT, (1, 2), activation="relu6").ravel().tolist() == [5, 6]


def test_requantize() -> None:
    # Reals 1, -1 and 100 (which saturates); then 7/16, which rounds twice: 3.5 to 4 and 4/8 = 0.5 to 1.
    x = int8([3, -1, 127])
    assert tflm.requantize(x, Quantization(0.5, 1), Quantization(0.25, 10)).tolist() == [14, 6, 127]
    assert tflm.requantize(int8([7]), UNIT, Quantization(16.0, 0)).tolist() == [1]


def test_prelu() -> None:
    # Reals -1 and 1 of slopes -1/2 and 2, in units of 1/4.
    x = int8([[-2, -2], [2, 2]], 1, 2, 1, 2)
    y = tflm.prelu(x, int8([-2, 8]), HALF, 0.25, Quantization(0.25, 3))
    assert y.ravel().tolist() == [5, -5, 7, 7]


def test_softmax() -> None:
    # In units of 1/256 from -128: 1/4 each; 1 saturates at 127; ln 3 makes 3/4 and 1/4.
    assert tflm.softmax(int8([[5, 5, 5, 5]]), UNIT).tolist() == [[-64, -64, -64, -64]]
    assert tflm.softmax(int8([[127, -128]]), UNIT).tolist() == [[127, -128]]
    log3 = Quantization(float(np.float32(np.log(3))), 0)
    assert tflm.softmax(int8([[1, 0], [-7, -6]]), log3).tolist() == [[64, -64], [-64, 64]]


def test_argmax() -> None:
    # Of equal ones the first.
    assert tflm.argmax(int8([[-5, 3, 3], [-128, -128, -128], [1, 2, 3]]), UNIT).tolist() == [1, 0, 2]


def test_gather() -> None:
    table, rows = int8([[1, 2], [3, 4], [-128, 127]]), np.array([2, 0, 2], np.int32)
    assert tflm.gather(table, rows, UNIT).tolist() == [[-128, 127], [1, 2], [-128, 127]]


def test_log_softmax() -> None:
    # In sixteenths from 127: log 1/4 is -22.2; log 3/4 and 1/4 are -4.6 and -22.2; -16 and below saturate.
    assert tflm.log_softmax(int8([[5, 5, 5, 5]]), UNIT).tolist() == [[105, 105, 105, 105]]
    assert tflm.log_softmax(int8([[127, -128]]), UNIT).tolist() == [[127, -128]]
    log3 = Quantization(float(np.float32(np.log(3))), 0)
    assert tflm.log_softmax(int8([[1, 0], [-7, -6]]), log3).tolist() == [[122, 105], [105, 122]]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # In units of 1/64: expm1(-1) * 64 = -40.5 (-40.46), expm1(-1/2) * 64 = -25.2, 32, 64.
        ("elu", [-40, -25, 0, 32, 64]),
        # A quarter of -64 and -32.
        ("leaky_relu", [-16, -8, 0, 32, 64]),
        # x * (x + 3) / 6: -1/3, -5/24, 0, 7/24, 2/3.
        ("hard_swish", [-21, -13, 0, 19, 43]),
    ],
)
def test_unary(function: tflm.UnaryFunction, expected: list[int]) -> None:
    x, sixty_fourth = int8([-2, -1, 0, 1, 2]), Quantization(1 / 64, 0)
    assert tflm.unary(function, x, HALF, sixty_fourth, alpha=0.25).tolist() == expected


def test_unary_of_fixed_output() -> None:
    x = int8([-2, -1, 0, 1, 2])
    # 256 / (1 + exp(-x)) - 128 and 128 * tanh(x) at -1, -1/2, 0, 1/2, 1.
    assert tflm.unary("logistic", x, HALF, tflm.UNARY_OUTPUT["logistic"]).tolist() == [-59, -31, 0, 31, 59]
    assert tflm.unary("tanh", x, HALF, tflm.UNARY_OUTPUT["tanh"]).tolist() == [-97, -59, 0, 59, 97]


def test_activation_range() -> None:
    assert tflm.activation_range("none", Quantization(0.5, 3)) == (-128, 127)
    assert tflm.activation_range("relu", Quantization(0.5, 3)) == (3, 127)
    assert tflm.activation_range("relu6", Quantization(0.5, 3)) == (3, 15)
    # 6 / 4 = 1.5 rounds away from zero.
    assert tflm.activation_range("relu6", Quantization(4.0, 3)) == (3, 5)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TFLite's SAME: ceil(size / stride) outputs, the odd element of padding after."""
    total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return total // 2, total - total // 2


@pytest.mark.parametrize("seed", range(40))
def test_explicit_padding_equals_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    area, q = window(rng, dilated=True), Quantization(0.25, int(rng.integers(-128, 128)))
    x = int8_input(rng, (2, *area.size, 3))
    weights = rng.integers(-127, 128, (2, *area.kernel, 3), np.int8)
    depthwise = rng.integers(-127, 128, (1, *area.kernel, 3), np.int8)

    def explicit(dilation: tuple[int, int]) -> tuple[int, int, int, int]:
        rows, columns = (
            same_padding(*axis) for axis in zip(area.size, area.kernel, area.stride, dilation, strict=True)
        )
        return (*rows, *columns)

    for run, arguments in (
        (tflm.conv2d, (x, weights, bias(1, 2), q, scales(0.01, 0.02), q)),
        (tflm.depthwise_conv2d, (x, depthwise, bias(1, 2, 3), q, scales(0.01, 0.02, 0.03), q)),
    ):
        same = run(*arguments, stride=area.stride, dilation=area.dilation, padding="same")
        padded = run(*arguments, stride=area.stride, dilation=area.dilation, padding=explicit(area.dilation))
        assert np.array_equal(same, padded), f"seed {seed}"
    for pool in (tflm.max_pool, tflm.average_pool):
        same = pool(x, q, area.kernel, stride=area.stride, padding="same")
        padded = pool(x, q, area.kernel, stride=area.stride, padding=explicit((1, 1)))
        assert np.array_equal(same, padded), f"seed {seed}"


def test_what_tflm_does_not_define_is_refused() -> None:
    x, w = int8([[1]]), int8([[1]])
    with pytest.raises(ValueError, match="float32"):
        Quantization(0.1, 0)
    with pytest.raises(ValueError, match="zero_point"):
        Quantization(0.5, 128)
    with pytest.raises(ValueError, match="overflows"):
        tflm.fully_connected(x, w, bias(2**30), UNIT, scales(1.0), UNIT)
    with pytest.raises(ValueError, match="overflows"):
        tflm.requantize(x, UNIT, Quantization(2.0**-24, 0))
    with pytest.raises(ValueError, match="aborts"):
        tflm.add(x, x, UNIT, UNIT, Quantization(2.0**-20, 0))
    with pytest.raises(ValueError, match="512"):
        tflm.softmax(np.zeros((1, 512), np.int8), UNIT)
    with pytest.raises(ValueError, match="aborts"):
        tflm.softmax(x, Quantization(2.0**-26, 0))
    with pytest.raises(ValueError, match="-127"):
        tflm.fully_connected(x, int8([[-128]]), bias(0), UNIT, scales(1.0), UNIT)
    with pytest.raises(ValueError, match="larger than the padded input"):
        tflm.conv2d(int8([[[[1]]]]), int8([[[[1], [1]]]]), bias(0), UNIT, scales(1.0), UNIT)
    with pytest.raises(ValueError, match="smaller than the kernel"):
        tflm.max_pool(int8([[[[1]]]]), UNIT, (1, 1), padding=(0, 0, 1, 0))
