"""`LdaHead` and `PrototypeHead` in plain integers: the oracle that nano-core must equal byte for byte.

Python's integers do not overflow; every intermediate is asserted to fit the width the device uses, so a run
that passes did not overflow on the device either.

>>> import numpy as np
>>> head = LdaHead(classes=2, capacity=2, features=1, zero_point=0, shrinkage=0.2)
>>> for q, label in [(-100, 0), (-90, 0), (90, 1), (100, 1)]:
...     head.learn(np.array([q]), label)
>>> head.commit()
>>> [int(head.logits(np.array([q])).argmax()) for q in (-95, 95)]
[0, 1]
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

NO_LOGIT = -(2**31)
MEAN_BITS, FRACTION, GUARD_BITS, SWEEPS = 22, 7, 6, 30


def fits(value: int, bits: int) -> int:
    """`value`, after asserting that a signed number of so many bits holds it."""
    assert -(1 << bits - 1) <= value < 1 << bits - 1, f"{value} overflows {bits} bits"
    return value


def divided(value: int, by: int) -> int:
    """`value / by`, rounded towards 0."""
    return -(-value // by) if value < 0 else value // by


def wrapped(value: int) -> int:
    """The low 32 bits, as a signed number.

    >>> wrapped(2**31)
    -2147483648
    """
    return (value + 2**31) % 2**32 - 2**31


def quotient(total: int, count: int) -> int:
    """`total / count` in 1/2^22, rounded half up; 0 of nothing."""
    return (fits(total << MEAN_BITS + 1, 64) + count) // (2 * count) if count else 0


def shift_right(value: int, down: int) -> int:
    """Rounded half up.

    >>> shift_right(5, 1), shift_right(-5, 1)
    (3, -2)
    """
    return value + (1 << down - 1) >> down if down else value


@dataclass
class Start:
    """What the factory knows: means [classes, features] in 1/2^7, the variance within a class in 1/64, and
    for LdaHead the sums of products [features, features] of `freedom` degrees of freedom, and the shipped
    layer's integers.
    """

    means: IntArray
    strength: int
    variance: int
    freedom: int
    products: IntArray
    weights: IntArray
    biases: list[int]
    exponent: int

    @classmethod
    def of(
        cls,
        means: Floats,
        covariance: Floats,
        weights: Floats,
        biases: Floats,
        *,
        mean_strength: float,
        spread_strength: float,
        scale: float,
        zero_point: int,
    ) -> Start:
        """From the real numbers that nano-core's writer is given."""
        freedom = int(min(max(spread_strength * len(means) + 0.5, 1), 256))
        largest_weight, largest_bias = float(np.abs(weights).max()) * scale, float(np.abs(biases).max())
        exponent = 32
        while largest_weight * 2.0**exponent > 2**14 or largest_bias * 2.0**exponent > 2**30:
            exponent -= 1
        products = rounded(covariance.astype(np.float64) * freedom)
        products = np.clip(products, -(2**23), np.where(np.eye(len(products)), freedom << 15, 2**23))
        variance = rounded(np.array(float(np.trace(covariance.astype(np.float64))) * 64))
        return cls(
            means=np.clip(
                rounded(means.astype(np.float64) * 128), (-128 - zero_point) << 7, (127 - zero_point) << 7
            ),
            strength=int(mean_strength * 256 + 0.5),
            variance=min(max(int(variance), 1), 1 << 30),
            freedom=freedom,
            products=products,
            weights=rounded(weights.astype(np.float64) * (2.0**exponent * scale)),
            biases=[int(b) for b in rounded(biases.astype(np.float64) * 2.0**exponent)],
            exponent=exponent,
        )

    def combined(
        self, counts: list[int], user: IntArray, variance: int, bounds: tuple[int, int]
    ) -> list[list[int]]:
        """The means [classes, features] of factory and user."""
        shares = [(n << 15) // (n + 1) for n in counts]
        total = sum(shares) + 2**14
        moves = [
            sum(fits(share * int(u - m), 48) for share, u, m in zip(shares, users, own, strict=True))
            for users, own in zip(user.T, self.means.T, strict=True)
        ]
        moved = [fits(divided(move, total), 32) for move in moves]
        expected = np.clip(self.means + np.array(moved), *bounds)
        distances = [
            max((int(((u - m) ** 2).sum()) >> 8) - variance // n, 0)
            for n, u, m in zip(counts, user, expected, strict=True)
            if n
        ]
        weight = fits(self.strength * variance * len(distances), 64) // max(sum(distances), 1)
        weight = min(max(weight, 4), 64 << 8)
        means = []
        for n, u, m in zip(counts, user, expected, strict=True):
            share = (n << 24) // ((n << 8) + weight)
            means.append(
                [fits(int(a) + (int(b - a) * share + 2**15 >> 16), 16) for a, b in zip(m, u, strict=True)]
            )
        return means


def rounded(values: npt.NDArray[np.float64]) -> IntArray:
    """To the nearest integer, halves away from zero."""
    return np.trunc(values + np.copysign(0.5, values)).astype(np.int64)


class Sums:
    """Counts n_k, sums s_ki, and the classes in use."""

    #: The most samples: of a class, or of all.
    most: int

    def __init__(
        self, *, classes: int, capacity: int, features: int, zero_point: int, half_life: int | None = None
    ) -> None:
        self.classes, self.zero_point = classes, zero_point
        self.half_life, self.halvings = half_life, 0
        self.counts = [0] * capacity
        self.sums = np.zeros((capacity, features), np.int64)

    def inputs(self, q: npt.NDArray[np.generic]) -> IntArray:
        return np.asarray(q, np.int64) - self.zero_point

    def learn(self, q: npt.NDArray[np.generic], label: int, times: int = 1) -> None:
        """Adds a sample, or with `times` -1 takes it out."""
        if times > 0:
            self.make_room(label)
        self.counts[label] += times
        self.sums[label] += times * self.inputs(q)

    def is_old(self, label: int) -> bool:
        """Whether the class has twice the half-life of its samples."""
        return self.half_life is not None and self.counts[label] >= 2 * self.half_life

    def make_room(self, label: int) -> None:
        """Halves what must fade before the class gets another sample."""
        raise NotImplementedError

    def halve(self, label: int) -> None:
        """Halves the sums of a class."""
        before = self.counts[label]
        after = (before + 1) // 2
        if before:
            self.sums[label] = [
                (2 * fits(int(s), 32) * after + before) // (2 * before) for s in self.sums[label]
            ]
        self.counts[label] = after

    def forget(self, label: int) -> None:
        self.counts[label] = 0
        self.sums[label] = 0


class PrototypeHead(Sums):
    """The nearest class mean."""

    most = 1 << 16

    def __init__(self, *, start: Start | None = None, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.start = start

    def learn(self, q: npt.NDArray[np.generic], label: int, times: int = 1) -> None:
        if times > 0 and self.half_life is not None and int(self.logits(q).argmax()) != label:
            while self.counts[label] > 1:
                self._fade(label)
        super().learn(q, label, times)

    def make_room(self, label: int) -> None:
        if self.counts[label] == self.most or self.is_old(label):
            self._fade(label)

    def _fade(self, label: int) -> None:
        self.halve(label)
        self.halvings += 1

    def _started(self, start: Start, q: npt.NDArray[np.generic]) -> IntArray:
        """The logits of a head with a start."""
        means = np.array(
            [
                [((int(total) << FRACTION + 1) + n) // (2 * n) if n else 0 for total in row]
                for n, row in zip(self.counts, self.sums, strict=True)
            ]
        )
        known = len(start.means)
        bounds = ((-128 - self.zero_point) << FRACTION, (127 - self.zero_point) << FRACTION)
        means[:known] = start.combined(self.counts[:known], means[:known], start.variance, bounds)
        logits = []
        for label in range(self.classes):
            squares = sum(fits(int(d), 17) ** 2 for d in (self.inputs(q) << FRACTION) - means[label])
            logits.append(-fits(squares >> 10, 32) if label < known or self.counts[label] else NO_LOGIT)
        return np.array(logits)

    def logits(self, q: npt.NDArray[np.generic]) -> IntArray:
        if self.start is not None:
            return self._started(self.start, q)
        logits = []
        for count, sums in zip(self.counts[: self.classes], self.sums, strict=False):
            squares = sum(fits(int(d), 32) ** 2 for d in count * self.inputs(q) - sums)
            logits.append(-(fits(squares << 4, 64) // count**2) if count else NO_LOGIT)
        return np.array(logits)

    def state(self) -> bytes:
        return (
            struct.pack(f"<{2 + len(self.counts)}I", self.classes, self.halvings, *self.counts)
            + self.sums.astype("<i4").tobytes()
        )


class LdaHead(Sums):
    """Linear discriminant analysis."""

    most = 1 << 15

    def __init__(self, *, shrinkage: float, start: Start | None = None, **sizes: Any) -> None:
        super().__init__(**sizes)
        capacity, features = self.sums.shape
        self.products = np.zeros((features, features), np.int64)
        self.ratio = int(shrinkage * 65536 + 0.5)
        self.retired, self.exponent, self.freedom = 0, 0, 1
        self.biases = [NO_LOGIT] * capacity
        self.weights = np.zeros((capacity, features), np.int64)
        self.start = start
        if start is not None:
            self._restore(start)

    def samples_freedom(self) -> int:
        """The samples, less one for each class."""
        return sum(self.counts) + self.retired - sum(count > 0 for count in self.counts)

    def make_room(self, label: int) -> None:
        if sum(self.counts) + self.retired == self.most or self.is_old(label):
            self.halve_all()

    def between(self) -> IntArray:
        """[features, features]: `sum s_i s_j / n` of all classes, from means in 1/2^22, rounded half up."""
        features = self.sums.shape[1]
        corrections = np.zeros((features, features), np.int64)
        means = [
            [quotient(int(total), n) for total in row] for n, row in zip(self.counts, self.sums, strict=True)
        ]
        for i in range(features):
            for j in range(i, features):
                total = sum(row[i] * int(sums[j]) for row, sums in zip(means, self.sums, strict=True))
                corrections[i, j] = corrections[j, i] = shift_right(fits(total, 63), MEAN_BITS)
        return corrections

    def halve_all(self) -> None:
        """Halves the sums of all classes; the scatter within them keeps its share of degrees of freedom."""
        before, within = self.samples_freedom(), self.products - self.between()
        for label in range(len(self.counts)):
            self.halve(label)
        self.retired //= 2
        self.halvings += 1
        share = (self.samples_freedom() << 16) // max(before, 1)
        largest = (sum(self.counts) + self.retired) * 65025
        self.products = np.clip((within * share + 2**15 >> 16) + self.between(), -largest, largest)
        np.fill_diagonal(self.products, np.maximum(self.products.diagonal(), 0))

    def _restore(self, start: Start) -> None:
        known = len(start.means)
        self.biases = start.biases + [NO_LOGIT] * (len(self.counts) - known)
        self.weights[:] = 0
        self.weights[:known] = start.weights
        self.exponent, self.freedom = start.exponent, 1

    def learn(self, q: npt.NDArray[np.generic], label: int, times: int = 1) -> None:
        super().learn(q, label, times)
        self.products += times * np.outer(self.inputs(q), self.inputs(q))

    def forget(self, label: int) -> None:
        count = self.counts[label]
        if count:
            products = np.outer(self.sums[label], self.sums[label])
            self.products -= (2 * products + count) // (2 * count)
            self.retired += count - 1
        super().forget(label)
        self.biases[label] = NO_LOGIT
        self.weights[label] = 0

    def logits(self, q: npt.NDArray[np.generic]) -> IntArray:
        x = self.inputs(q)
        rows = zip(self.biases[: self.classes], self.weights, strict=False)
        return np.array(
            [bias if bias == NO_LOGIT else fits(bias + int(row @ x), 32) for bias, row in rows], np.int64
        )

    def state(self) -> bytes:
        features = self.sums.shape[1]
        header = struct.pack("<IIIiI", self.classes, self.retired, self.halvings, self.exponent, self.freedom)
        weights = self.weights.astype("<i2").tobytes()
        return b"".join(
            [
                header,
                np.array(self.counts, "<u4").tobytes(),
                self.sums.astype("<i4").tobytes(),
                self.products[np.triu_indices(features)].astype("<i4").tobytes(),
                np.array(self.biases, "<i4").tobytes(),
                weights + bytes(-len(weights) % 4),
            ]
        )

    def commit(self) -> None:
        """Solves for the weights."""
        features = self.sums.shape[1]
        known = [label for label, count in enumerate(self.counts) if count]
        if self.start is not None and not known:
            self._restore(self.start)
            return
        self.freedom = self.samples_freedom()
        means = [
            [quotient(int(total), n) for total in row] for n, row in zip(self.counts, self.sums, strict=True)
        ]
        user = np.array([[shift_right(mean, MEAN_BITS - FRACTION) for mean in row] for row in means])
        products = self.products
        if self.start is not None:
            start, classes = self.start, len(self.start.means)
            known = sorted({*known, *range(classes)})
            between = [
                sum(row[i] * int(total) for row, total in zip(means, self.sums[:, i], strict=True))
                >> MEAN_BITS
                for i in range(features)
            ]
            within = sum(max(int(self.products[i, i]) - between[i], 0) for i in range(features))
            variance = fits((within << 6) + classes * start.variance, 64) // (self.freedom + classes)
            bounds = ((-128 - self.zero_point) << FRACTION, (127 - self.zero_point) << FRACTION)
            user[:classes] = start.combined(self.counts[:classes], user[:classes], variance, bounds)
            share = min((variance << 16) // start.variance, 2**16)
            products = products + (start.products * share + 2**15 >> 16)
            self.freedom += start.freedom
        self.freedom = max(self.freedom, 1)
        shrinkage = self.ratio + fits((features**2 << 14) + self.freedom**2 // 2, 32) // self.freedom**2
        largest = fits(int(np.abs(products).max()), 32)
        shift = min(max(31 - largest.bit_length() - (shrinkage >> 16).bit_length(), 0), 16)
        matrix = self._corrected(products, means, shift)
        diagonal = [max(int(matrix[i, i]), 0) for i in range(features)]
        lambda_ = max((fits(sum(diagonal) * shrinkage, 64) >> 16) // features, 1 << shift)
        assert lambda_ < 2**31
        divisors = [entry + lambda_ for entry in diagonal]
        assert max(divisors) < 2**32
        centre = [0] * features
        if known:
            sums = [sum(int(user[label, i]) for label in known) for i in range(features)]
            centre = [((s << MEAN_BITS + 1 - FRACTION) + len(known)) // (2 * len(known)) for s in sums]
        right = {
            label: [(int(m) << MEAN_BITS - FRACTION) - c for m, c in zip(user[label], centre, strict=True)]
            for label in known
        }
        longest = max((sum((r >> 14) ** 2 for r in row) for row in right.values()), default=0)
        length = -(-longest.bit_length() // 2) - 8
        limit = min(25, 31 - (features - 1).bit_length())
        exponent = limit - 1 + lambda_.bit_length() - 1 - shift - length
        rows: dict[int, tuple[int, int, list[int]]] = {}
        for label in known:
            weights = self._swept(matrix, divisors, right[label], shift + exponent - MEAN_BITS, limit)
            down = max(max(abs(w) for w in weights).bit_length() - 14, 0)
            terms = zip(right[label], centre, weights, strict=True)
            twice = -sum(fits(r + 2 * c, 32) // 256 * w for r, c, w in terms)
            bias = fits(shift_right(fits(twice, 64), down + 15), 32)
            rows[label] = down, bias, [fits(shift_right(w, down), 16) for w in weights]
        common = max((down for down, _, _ in rows.values()), default=0)
        self.biases, self.weights[:] = [NO_LOGIT] * len(self.counts), 0
        for label, (down, bias, weights) in rows.items():
            self.biases[label] = shift_right(bias, common - down)
            self.weights[label] = [shift_right(w, common - down) for w in weights]
        self.exponent = exponent - common

    def _corrected(self, products: IntArray, means: list[list[int]], shift: int) -> IntArray:
        """The symmetric matrix without lambda, shifted left."""
        features = self.sums.shape[1]
        matrix = np.zeros((features, features), np.int64)
        for i in range(features):
            for j in range(i, features):
                between = sum(row[i] * int(total) for row, total in zip(means, self.sums[:, j], strict=True))
                correction = fits(between + (1 << MEAN_BITS - shift - 1), 64) >> MEAN_BITS - shift
                scaled = fits(int(products[i, j]) << shift, 32)
                matrix[i, j] = matrix[j, i] = wrapped(scaled - correction)
        return matrix

    def _swept(
        self, matrix: IntArray, divisors: list[int], right: list[int], shift: int, limit: int
    ) -> list[int]:
        """Gauss-Seidel from zero."""
        features = len(right)
        off_diagonal = matrix.copy()
        np.fill_diagonal(off_diagonal, 0)
        largest = (1 << limit) - 1
        weights = np.zeros(features, np.int64)
        for _ in range(SWEEPS):
            before = weights.copy()
            for i, divisor in enumerate(divisors):
                target = fits(right[i] << shift if shift >= 0 else right[i] >> -shift, 63)
                residue = fits(target - int(off_diagonal[i] @ weights), 64)
                down = divisor.bit_length() - 1 - GUARD_BITS
                short = residue << -down if down < 0 else residue >> down
                short = max(-(2**31), min(2**31 - 1, short))
                reciprocal = (1 << divisor.bit_length() + 30) // divisor
                weight = shift_right(fits(short * reciprocal, 64), 31 + GUARD_BITS)
                weights[i] = max(-largest, min(largest, weight))
            if (weights == before).all():
                break
        return [int(w) for w in weights]
