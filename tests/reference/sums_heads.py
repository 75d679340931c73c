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

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

NO_LOGIT = -(2**31)
MEAN_BITS, GUARD_BITS, SWEEPS = 22, 6, 30


def fits(value: int, bits: int) -> int:
    """`value`, after asserting that a signed number of so many bits holds it."""
    assert -(1 << bits - 1) <= value < 1 << bits - 1, f"{value} overflows {bits} bits"
    return value


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


class Sums:
    """Counts n_k, sums s_ki, and the classes in use."""

    def __init__(self, *, classes: int, capacity: int, features: int, zero_point: int) -> None:
        self.classes, self.zero_point = classes, zero_point
        self.counts = [0] * capacity
        self.sums = np.zeros((capacity, features), np.int64)

    def inputs(self, q: npt.NDArray[np.generic]) -> IntArray:
        return np.asarray(q, np.int64) - self.zero_point

    def learn(self, q: npt.NDArray[np.generic], label: int, times: int = 1) -> None:
        """Adds a sample, or with `times` -1 takes it out."""
        self.counts[label] += times
        self.sums[label] += times * self.inputs(q)

    def forget(self, label: int) -> None:
        self.counts[label] = 0
        self.sums[label] = 0


class PrototypeHead(Sums):
    """The nearest class mean."""

    def logits(self, q: npt.NDArray[np.generic]) -> IntArray:
        logits = []
        for count, sums in zip(self.counts[: self.classes], self.sums, strict=False):
            squares = sum(fits(int(d), 32) ** 2 for d in count * self.inputs(q) - sums)
            logits.append(-(fits(squares << 4, 64) // count**2) if count else NO_LOGIT)
        return np.array(logits)

    def state(self) -> bytes:
        return (
            struct.pack(f"<{1 + len(self.counts)}I", self.classes, *self.counts)
            + self.sums.astype("<i4").tobytes()
        )


class LdaHead(Sums):
    """Linear discriminant analysis."""

    def __init__(
        self, *, classes: int, capacity: int, features: int, zero_point: int, shrinkage: float
    ) -> None:
        super().__init__(classes=classes, capacity=capacity, features=features, zero_point=zero_point)
        self.products = np.zeros((features, features), np.int64)
        self.ratio = int(shrinkage * 65536 + 0.5)
        self.retired, self.exponent, self.freedom = 0, 0, 1
        self.biases = [NO_LOGIT] * capacity
        self.weights = np.zeros((capacity, features), np.int64)

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
        header = struct.pack("<IIiI", self.classes, self.retired, self.exponent, self.freedom)
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
        samples = sum(self.counts)
        self.freedom = max(samples + self.retired - len(known), 1)
        shrinkage = self.ratio + fits((features**2 << 14) + self.freedom**2 // 2, 32) // self.freedom**2
        largest = int(np.abs(self.products).max())
        shift = min(max(31 - largest.bit_length() - (shrinkage >> 16).bit_length(), 0), 16)
        means = [
            [quotient(int(total), n) for total in row] for n, row in zip(self.counts, self.sums, strict=True)
        ]
        matrix = self._corrected(means, shift)
        diagonal = [max(int(matrix[i, i]), 0) for i in range(features)]
        lambda_ = max((fits(sum(diagonal) * shrinkage, 64) >> 16) // features, 1 << shift)
        assert lambda_ < 2**31
        divisors = [entry + lambda_ for entry in diagonal]
        assert max(divisors) < 2**32
        centre = [quotient(int(total), samples) for total in self.sums.sum(0)]
        right = {label: [m - c for m, c in zip(means[label], centre, strict=True)] for label in known}
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

    def _corrected(self, means: list[list[int]], shift: int) -> IntArray:
        """The symmetric matrix without lambda, shifted left."""
        features = self.sums.shape[1]
        matrix = np.zeros((features, features), np.int64)
        for i in range(features):
            for j in range(i, features):
                products = sum(row[i] * int(total) for row, total in zip(means, self.sums[:, j], strict=True))
                correction = fits(products + (1 << MEAN_BITS - shift - 1), 64) >> MEAN_BITS - shift
                scaled = fits(int(self.products[i, j]) << shift, 32)
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
