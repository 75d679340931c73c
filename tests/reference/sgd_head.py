"""`SgdHead` in plain integers: the oracle that nano-core's implementation must equal byte for byte.

Softmax cross-entropy SGD on a Linear head of K classes over D int8 features. The only floats are in what the
host prepares (the first V, `power_of_two_ratio`, `LUT`). Every integer intermediate is computed in int64 and
asserted to fit the width the device uses, so a run that passes did not overflow on the device either.

>>> zeros = {"weight": [[0.0], [0.0]], "bias": [0.0, 0.0]}
>>> head = SgdHead.from_float(**zeros, feature_scale=1 / 255, feature_zero_point=-128, lr=0.5, capacity=2)
>>> for feature, label in [(-128, 0), (127, 1)]:
...     head.record([feature], label)
>>> head.train(epochs=50)
False
>>> head.predict([-100]), head.predict([100])
(0, 1)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
IntLike = Sequence[int] | npt.NDArray[np.int8] | IntArray
FloatLike = Sequence[float] | Sequence[Sequence[float]] | npt.NDArray[np.float32] | npt.NDArray[np.float64]

LARGEST_BIAS_INPUT = 128
LUT = tuple(math.floor(2**15 * 2.0 ** (-j / 256) + 0.5) for j in range(256))
"""2^(-j/256) in Q15; LUT[0] = 32768, so an entry is a uint16."""
INITIAL_MAX, HALVE_ABOVE, SATURATE = 16000, 32000, 32639
"""Bounds of |V|: at the start, before all V are halved, and in any case (so that V + 128 is an int16)."""
SKIP = 1024
VALUE_STEPS, VALUE_SKIP = 4096, 8
ZERO_HEAD_STEPS = 16
MAX_SOFTMAX_SHIFT, MAX_UPDATE_SHIFT = 63, 30
STABLE_RATES = {"cross_entropy": 4.0, "binary": 8.0, "squared": 2.0}
MEASURED_SAMPLES = 64
LARGEST_IMBALANCE = 16
OCTAVE, PRIOR_SAMPLES = 256, 4
XORSHIFT_SEED = 0x9E3779B9


def fits(value: IntArray | int, bits: int, signed: bool = True) -> IntArray:
    """`value` as int64 after asserting that `bits` hold it (signed two's complement, or unsigned)."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    array = np.asarray(value)
    assert (array >= low).all() and (array <= high).all(), f"{value} overflows {bits} bits (signed={signed})"
    return np.asarray(array, dtype=np.int64)


def round_half_away(value: npt.NDArray[np.float64]) -> IntArray:
    """To the nearest integer, halves away from zero.

    >>> round_half_away(np.array([-1.5, -0.4, 0.5, 2.5])).tolist()
    [-2, 0, 1, 3]
    """
    return (np.sign(value) * np.floor(np.abs(value) + 0.5)).astype(np.int64)


def bias_input(scale: float) -> int:
    """The integer nearest to 1 / scale, from 1 to 128: the input of the bias, whose real value is 1.

    >>> bias_input(0.03)
    33
    """
    return int(min(max(1 / scale, 1.0), float(LARGEST_BIAS_INPUT)) + 0.5)


def fades(age: int, epoch: int, half_life: int | None) -> bool:
    """Whether an epoch leaves out a sample with so many newer ones.

    >>> [[age for age in range(8) if not fades(age, epoch, 2)] for epoch in range(5)]
    [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1], [0, 1, 2, 3], [0, 1], [0, 1, 2, 3, 4, 5]]
    """
    return half_life is not None and epoch % 2 ** (age // half_life) != 0


def power_of_two_ratio(value: float, bits: int) -> tuple[int, int]:
    """(m, shift) with value ~ m / 2^shift and 2^(bits-1) <= m < 2^bits.

    >>> power_of_two_ratio(0.375, bits=16)
    (49152, 17)
    """
    fraction, exponent = math.frexp(value)
    m = math.floor(fraction * 2**bits + 0.5)
    if m == 1 << bits:
        m, exponent = m >> 1, exponent + 1
    return m, bits - exponent


def logarithm(value: int) -> int:
    """log2 in 1/256, a line between powers of two; that of 0 is taken as 0.

    >>> logarithm(0), logarithm(1), logarithm(3), logarithm(4)
    (0, 0, 384, 512)
    """
    fits(value, 63, signed=False)
    whole = max(value, 1).bit_length() - 1
    return whole * OCTAVE + ((value << 8 >> whole) & 255)


class Xorshift32:
    """Marsaglia's xorshift (13, 17, 5).

    >>> Xorshift32(1).next()
    270369
    """

    def __init__(self, state: int) -> None:
        self.state = state

    def next(self) -> int:
        """The next uint32 (never 0)."""
        x = self.state
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
        self.state = x
        return x


def visits(random: Xorshift32, count: int) -> list[int]:
    """One epoch's order over `count` samples: a stride coprime to it from some sample on, both drawn.

    >>> visits(Xorshift32(1), 5)
    [4, 1, 3, 0, 2]
    """
    stride = 1 + random.next() % max(count - 1, 1)
    while math.gcd(stride, count) != 1:
        stride = stride + 1 if stride < count - 1 else 1
    offset = random.next() % count
    return [(offset + j * stride) % count for j in range(count)]


def errors(loss: str, a: IntArray, label: int, multiplier: int, shift: int) -> IntArray:
    """e [K] of scores a [K]: softmax minus the one-hot label in Q15; or sigmoids minus the bits of `label` in
    Q15; or the output minus `label` in 1/4096.

    >>> errors("squared", np.array([3]), 4096, 4096, 0).tolist()
    [8192]
    """
    if loss == "squared":
        output = int(fits(int(a[0]) * multiplier, 64)) >> shift
        return np.array([max(-(2**15), min(2**15, output - label))])
    distance = np.abs(a) if loss == "binary" else fits(a.max() - a, 32, signed=False)
    product = [int(d) * multiplier for d in distance]
    assert max(product) < 1 << 64
    u = [min(p >> shift, 2**15 - 1) for p in product]
    p = np.array([LUT[j & 255] >> (j >> 8) if j >> 8 <= 15 else 0 for j in u], dtype=np.int64)
    if loss == "binary":
        bits = np.array([label >> k & 1 for k in range(len(a))])
        upper = 2**30 // (2**15 + p)
        return np.where(a < 0, 2**15 - upper, upper) - 2**15 * bits
    total = int(fits(p.sum(), 32))
    reciprocal = fits(2**30 // total, 32)
    e = fits(p * reciprocal, 32) >> 15
    e[label] -= 2**15
    return e


class SgdHead:
    """K classes over D features: `stored` int16 [K, D + 1] holds V + 128, whose high byte is the int8 weight.

    w_real = weight_scale * 2^exponent * V / 256 and logit_real = feature_scale * sum(w_real * x), where
    x = q - zero_point for the D features and :func:`bias_input` for the bias (last column).
    """

    def __init__(
        self,
        stored: IntArray,
        *,
        weight_scale: float,
        feature_scale: float,
        feature_zero_point: int,
        lr: float | None,
        capacity: int,
        loss: str = "cross_entropy",
        halve_every: int | None = None,
        class_weights: Sequence[float] = (),
        frozen: Sequence[int] = (),
        guard: int | None = None,
        balance: bool = False,
        half_life: int | None = None,
        prior: float = -1.0,
    ) -> None:
        self.stored = fits(stored, 16)
        self.zero_point = int(fits(feature_zero_point, 8))
        self.bias_input = bias_input(feature_scale)
        self.exponent = 0
        self.softmax_multiplier, self.softmax_shift = power_of_two_ratio(
            weight_scale * feature_scale * (VALUE_STEPS if loss == "squared" else math.log2(math.e) * 256),
            bits=16,
        )
        self.normalized, self.prior = lr is None, math.floor(prior * OCTAVE + 0.5)
        self.shipped = self.stored.copy()
        if lr is None:
            lr = 0.75 * STABLE_RATES[loss] / (feature_scale * feature_scale)
        self.update_multiplier, shift = power_of_two_ratio(
            lr * (feature_scale * 256 / (weight_scale * (VALUE_STEPS if loss == "squared" else 2**15))),
            bits=15,
        )
        self.update_shift = shift - 15
        if not 0 <= self.softmax_shift <= MAX_SOFTMAX_SHIFT:
            raise ValueError(
                f"feature_scale {feature_scale}, weight_scale {weight_scale}: softmax shift "
                f"{self.softmax_shift} is not in 0..={MAX_SOFTMAX_SHIFT}"
            )
        least = -MAX_UPDATE_SHIFT if self.normalized else 1
        if not least <= self.update_shift <= MAX_UPDATE_SHIFT:
            raise ValueError(
                f"lr {lr}: update shift {self.update_shift} is not in {least}..={MAX_UPDATE_SHIFT}"
            )
        self.loss, self.halve_every, self.frozen, self.guard = loss, halve_every, tuple(frozen), guard
        self.balance, self.half_life = balance, half_life
        #: Of the classes in the ring, during a training; and the number that learns at the full rate.
        self.counts: dict[int, int] = {}
        self.full_rate_at = 0
        weights = np.float64(class_weights if len(class_weights) else [1] * len(stored))
        self.rates = np.floor(self.update_multiplier * (weights / weights.max()) + 0.5).astype(np.int64)
        self.weight_scale = weight_scale
        self.capacity = capacity
        self.random = Xorshift32(XORSHIFT_SEED)
        self.ring: list[tuple[IntArray, int]] = []
        #: Number of samples that came before the oldest in the ring.
        self.first = 0

    @classmethod
    def from_float(
        cls,
        weight: FloatLike,
        bias: FloatLike,
        *,
        feature_scale: float,
        feature_zero_point: int,
        lr: float | None,
        capacity: int,
        **options: Any,
    ) -> SgdHead:
        """From a Linear's float weight [K, D] and bias [K].

        An all-zero head has no scale of its own: one weight step times a full-scale feature (255) is then
        1/ZERO_HEAD_STEPS of a logit, whatever the features' scale.
        """
        constant = bias_input(feature_scale)
        real = np.column_stack([weight, np.asarray(bias, dtype=np.float64) / (constant * feature_scale)])
        largest = float(np.abs(real).max())
        weight_scale = 256 * largest / INITIAL_MAX if largest else 1 / (ZERO_HEAD_STEPS * 255 * feature_scale)
        v = round_half_away(real * 256 / weight_scale)
        return cls(
            v + 128,
            weight_scale=weight_scale,
            feature_scale=feature_scale,
            feature_zero_point=feature_zero_point,
            lr=lr,
            capacity=capacity,
            **options,
        )

    def inputs(self, q: IntLike) -> IntArray:
        """x [D + 1] of int8 features q [D]."""
        return np.append(fits(np.asarray(q), 8) - self.zero_point, self.bias_input)

    def scores(self, q: IntLike) -> IntArray:
        """a [K], int32: what the forward pass computes."""
        w8 = fits(self.stored >> 8, 8)
        terms = fits(w8 * self.inputs(q), 32)
        fits(np.cumsum(terms, axis=1), 32)
        return fits(terms.sum(axis=1), 32)

    def predict(self, q: IntLike) -> int:
        """The class of the highest score, the lowest index among equals."""
        return int(self.scores(q).argmax())

    def errors(self, q: IntLike, label: int) -> IntArray:
        """:func:`errors` of the head's loss."""
        return errors(self.loss, self.scores(q), label, self.softmax_multiplier, self.softmax_shift)

    def lowered(self, samples: Sequence[tuple[IntLike, int]], alone: bool = False) -> int:
        """Minus the logarithm of a normalized rate for samples, or for one that is learnt alone."""
        if not self.normalized or not samples:
            return 0
        mean = sum(int((self.inputs(q) ** 2).sum()) for q, _ in samples) // len(samples)
        raised = 0 if alone or self.loss != "cross_entropy" else self.raised(samples)
        return logarithm(mean) - raised

    def raised(self, samples: Sequence[tuple[IntLike, int]]) -> int:
        """By how much their gradients raise the rate's logarithm."""
        stored, shift = self.stored, self.softmax_shift
        self.stored, self.softmax_shift = self.shipped, shift + self.exponent
        e = [self.errors(q, label) for q, label in samples]
        self.stored, self.softmax_shift = stored, shift
        x = [self.inputs(q) for q, _ in samples]
        count, classes = len(samples), len(stored)
        squares = [int(one @ one) >> 15 for one in e]
        guesses = 16 * classes * sum(squares) >= 15 * (classes - 1) * (count << 15)
        prior = 0 if guesses else self.prior
        inputs = [int(one @ one) for one in x]
        own = int(fits(int(np.dot(squares, inputs)), 63)) // count
        pairs = [(i, j) for i in range(count) for j in range(i) if samples[i][1] == samples[j][1]]
        if not own or not pairs:
            return prior
        products = fits(sum((int(e[i] @ e[j]) >> 15) * int(x[i] @ x[j]) for i, j in pairs), 63)
        agreed = max(int(products), 0) // len(pairs)
        odds = logarithm(agreed) - logarithm(max(own - agreed, 0))
        if guesses:
            raised = min(max((115 * odds >> 8) - 282, -4 * OCTAVE), OCTAVE)
        else:
            raised = min(max(3 * odds + 384, -896), 448)
        return (count * raised + PRIOR_SAMPLES * prior) // (count + PRIOR_SAMPLES)

    def step(self, q: IntLike, label: int, halvings: int = 0, lowered: int | None = None) -> None:
        """One SGD step on one sample, of which a normalized rate is made unless `lowered` is given."""
        lowered = self.lowered([(q, label)], alone=True) if lowered is None else lowered
        lowered += halvings * OCTAVE
        x, e, v = self.inputs(q), self.errors(q, label), self.stored - 128
        shift = max(1, min(self.update_shift + (lowered >> 8), MAX_UPDATE_SHIFT))
        for k in np.flatnonzero(np.abs(e) > (VALUE_SKIP if self.loss == "squared" else SKIP)):
            if k in self.frozen:
                continue
            rate = int(self.rates[label if self.loss == "cross_entropy" else k])
            if self.counts.get(label, 0) > self.full_rate_at:
                rate = rate * self.full_rate_at // self.counts[label]
            rate = rate * LUT[lowered & 255] >> 15
            g = fits(fits(e[k] * rate + 2**14, 32) >> 15, 32)
            delta = fits(g * x + (1 << shift - 1), 32) >> shift
            v[k] = np.clip(fits(v[k] - delta, 32), -SATURATE, SATURATE)
        # A normalized rate may begin with a left shift, which leaves no more room than a shift of 1.
        update_shift = max(self.update_shift, 1 + self.exponent)
        if np.abs(v).max() > HALVE_ABOVE and self.softmax_shift > 0 and update_shift < MAX_UPDATE_SHIFT:
            v >>= 1
            self.exponent += 1
            self.softmax_shift -= 1
            self.update_shift += 1
        self.stored = fits(v + 128, 16)

    def record(self, q: IntLike, label: int) -> None:
        """Put a sample into the ring of the latest `capacity` samples; the oldest gives way."""
        ring = [*self.ring, (fits(np.asarray(q), 8), label)]
        self.first += max(len(ring) - self.capacity, 0)
        self.ring = ring[-self.capacity :]

    def parts(self) -> tuple[list[tuple[IntArray, int]], list[tuple[IntArray, int]]]:
        """The ring's samples that trainings visit, and those kept aside: each whose number, from 1, is a
        multiple of the guard.
        """
        numbered = list(enumerate(self.ring, self.first + 1))
        if self.guard is None:
            return self.ring, []
        guard = self.guard
        visited = [sample for number, sample in numbered if number % guard]
        return visited, [sample for number, sample in numbered if number % guard == 0]

    def visits(self) -> list[int]:
        """One epoch's order over the visited samples (0 is the oldest); draws twice from the generator."""
        return visits(self.random, len(self.parts()[0]))

    def score(self, q: IntLike, label: int) -> tuple[bool, int]:
        """Whether it recognises a sample, and its error."""
        e = self.errors(q, label)
        if self.loss == "cross_entropy":
            return bool((e <= e[label] + 2**15).all()), abs(int(e[label]))
        return self.loss == "binary" and bool((np.abs(e) <= 2**14).all()), int(np.abs(e).sum())

    def scored(self, samples: Sequence[tuple[IntArray, int]]) -> tuple[int, int]:
        """The number of the samples that it recognises, and the sum of their errors."""
        scores = [self.score(*sample) for sample in samples]
        return sum(right for right, _ in scores), sum(error for _, error in scores)

    def train(self, epochs: int) -> bool:
        """`epochs` passes over the ring; one without samples draws nothing.

        Returns:
            Whether the guard took it back: of the samples kept aside the head recognises no more than before,
            nor as many with at most a quarter of the error.
        """
        visited, aside = self.parts()
        before = (self.stored.copy(), self.exponent, self.softmax_shift, self.update_shift, self.random.state)
        recognised, error = self.scored(aside)
        newest = visited
        if self.half_life is not None and visited:
            self.stored, self.random = self.shipped.copy(), Xorshift32(XORSHIFT_SEED)
            self.softmax_shift += self.exponent
            self.update_shift -= self.exponent
            self.exponent = 0
            newest = visited[-2 * self.half_life :]
        count = min(len(newest), MEASURED_SAMPLES)
        lowered = self.lowered([newest[place * len(newest) // count] for place in range(count)])
        if self.balance and self.ring:
            self.counts = Counter(label for _, label in self.ring)
            most, least = max(self.counts.values()), min(self.counts.values())
            self.full_rate_at = max(least, -(-most // LARGEST_IMBALANCE))
        for epoch in range(epochs if visited else 0):
            for index in self.visits():
                if fades(len(visited) - 1 - index, epoch, self.half_life):
                    continue
                self.step(*visited[index], epoch // self.halve_every if self.halve_every else 0, lowered)
        self.counts = {}
        now_recognised, now = self.scored(aside)
        better = now_recognised > recognised or (now_recognised == recognised and 4 * now <= error)
        taken_back = bool(aside) and not better
        if taken_back:
            self.stored, self.exponent, self.softmax_shift, self.update_shift, self.random.state = before
        return taken_back
