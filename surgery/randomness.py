"""Random numbers that depend on nothing but (seed, key, position), and are the same bits on every machine.

Bits come from a hash of the position. Everything above them is integer and IEEE arithmetic (+ - * / sqrt) in a fixed order,
never libm, whose last bits differ between machines. Serves the initializers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_WITHIN_TWO = 0.9544997361036416
"""Probability of a unit normal within ±2."""
_ATANH = tuple(1 / (2 * power + 1) for power in range(12))
_CENTRE = (
    (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
    (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
     21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610),
)  # fmt: skip
_NEAR_TAIL = (
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
     0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_FAR_TAIL = (
    (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 0.296560571828504891230,
     0.0265321895265761230930, 0.00124266094738807843860, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def random_bits(seed: int, key: str, positions: Array) -> Array:
    """64 random bits for each uint64 position: SplitMix64's finalizer twice, keyed by SHA-256 of seed and key.

    One application is the stream of SplitMix64; the second, with a key of its own, keeps two tensors apart whose streams overlap.
    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), variant 13 of Stafford's mixers.
    """
    import hashlib

    import numpy as np

    digest = hashlib.sha256(f"surgery fill 1\n{seed}\n".encode() + key.encode("utf-8", "surrogateescape")).digest()
    first, second = np.frombuffer(digest, "<u8", 2)
    bits = _mixed(positions * np.uint64(0x9E3779B97F4A7C15) + first)
    bits ^= second
    return _mixed(bits)


def _mixed(bits: Array) -> Array:
    """Stafford's variant 13 of the 64-bit finalizer of MurmurHash3, in place."""
    import numpy as np

    bits ^= bits >> 30
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> 27
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> 31
    return bits


def standard_normal(bits: Array, *, truncated: bool = False) -> Array:
    """Unit normals from 64 random bits each, by the inverse distribution function; `truncated` to within ±2.

    The upper 52 bits pick the middle of one of 2**52 equal steps of probability, so the largest magnitude is 8.2. About 16 digits.
    Source: Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37 (1988).
    """
    import numpy as np

    centred = ((bits >> 12).astype(np.int64) * 2 + (1 - 2**52)).astype(np.float64) * 2.0**-53  # probability minus 1/2, exact
    if truncated:
        centred *= _WITHIN_TWO
    square = 0.180625 - centred * centred
    values = centred * _horner(square, _CENTRE[0]) / _horner(square, _CENTRE[1])
    outer = np.flatnonzero(np.abs(centred) > 0.425)
    values[outer] = np.copysign(_tail(0.5 - np.abs(centred[outer])), centred[outer])
    return np.clip(values, -2.0, 2.0) if truncated else values


def _tail(probability: Array) -> Array:
    """The positive normal value that is exceeded with this probability (below 0.075)."""
    import numpy as np

    root = np.sqrt(-_log(probability))
    values = _horner(root - 1.6, _NEAR_TAIL[0]) / _horner(root - 1.6, _NEAR_TAIL[1])
    far = np.flatnonzero(root > 5.0)
    values[far] = _horner(root[far] - 5.0, _FAR_TAIL[0]) / _horner(root[far] - 5.0, _FAR_TAIL[1])
    return values


def _log(values: Array) -> Array:
    """Natural logarithm of positive normal numbers within about one unit in the last place, the same on every machine."""
    import numpy as np

    mantissa, exponent = np.frexp(values)
    small = mantissa < 0.7071067811865476
    mantissa = np.where(small, mantissa * 2, mantissa)
    exponent = exponent - small
    ratio = (mantissa - 1) / (mantissa + 1)
    series = _horner(ratio * ratio, _ATANH)
    result: Array = exponent * 0.6931471805599453 + 2 * ratio * series
    return result


def _horner(x: Array, coefficients: tuple[float, ...]) -> Array:
    """A polynomial, coefficients from the constant upwards; each operation rounds on its own, so no fused one can change the result."""
    result = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        result += coefficient
        result *= x
    result += coefficients[0]
    return result
