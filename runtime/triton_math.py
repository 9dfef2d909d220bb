"""What the emitted kernels compute with beyond `triton.language`: NaN-keeping extrema, accurate functions, Philox.

Each function works on blocks of float32. Imported as `tm` by emitted kernels.
"""

# Triton reads the source of these functions: no annotations but `tl.constexpr`, no postponed evaluation.
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def maximum(a, b):
    """The greater; NaN where either is, as in `torch.maximum`."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def minimum(a, b):
    """The lesser; NaN where either is."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def row_max(x):
    """Maximum of each row [R, 1]; NaN where a row holds one (`tl.max` drops it)."""
    nan = tl.max((x != x).to(tl.int32), axis=1, keep_dims=True) > 0
    return tl.where(nan, float("nan"), tl.max(x, axis=1, keep_dims=True))


@triton.jit
def row_min(x):
    """Minimum of each row [R, 1]; NaN where a row holds one."""
    nan = tl.max((x != x).to(tl.int32), axis=1, keep_dims=True) > 0
    return tl.where(nan, float("nan"), tl.min(x, axis=1, keep_dims=True))


@triton.jit
def sign(x):
    """-1, 0 or 1; 0 for NaN, as in `torch.sign`."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))


@triton.jit
def tanh(x):
    """Cephes' tanhf: a polynomial near 0, where 1 - 2 / (exp(2x) + 1) would cancel."""
    z = x * x
    near = ((((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1) * z) * z
    near = x + x * (near - 3.33332819422e-1 * z)
    far = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    return tl.where(tl.abs(x) < 0.625, near, tl.where(x < 0, -far, far))


@triton.jit
def log1p(x):
    """log(1 + x), corrected for the rounding of 1 + x (Kahan)."""
    u = 1.0 + x
    exact = (u == 1.0) | (u == float("inf"))
    return tl.where(exact, x, tl.log(u) * (x / tl.where(exact, 1.0, u - 1.0)))


@triton.jit
def expm1(x):
    """exp(x) - 1, corrected for the rounding of exp(x) (Kahan)."""
    u = tl.exp(x)
    less = u - 1.0
    plain = (less == -1.0) | (u == float("inf")) | (tl.abs(x) > 1.0)
    safe = tl.where(plain | (u == 1.0), 2.0, u)
    return tl.where(u == 1.0, x, tl.where(plain, less, less * (x / tl.log(safe))))


@triton.jit
def log10(x):
    return tl.log(x) * 0.4342944819032518


@triton.jit
def power(x, exponent):
    """x ** exponent. A negative base has a real power where the exponent is a whole number, and NaN elsewhere."""
    x, exponent = x * 1.0, exponent * 1.0
    whole = tl.floor(exponent) == exponent
    odd = whole & (tl.floor(exponent * 0.5) * 2.0 != exponent)
    size = tl.exp2(exponent * tl.log2(tl.abs(x)))
    size = tl.where(exponent == 0.0, 1.0, size)
    signed = tl.where(odd, -size, size)
    return tl.where(x < 0, tl.where(whole, signed, float("nan")), size)


@triton.jit
def _bits(seed, offsets):
    """Philox-4x32-10 of the element's index: two words of 32 bits."""
    low = (offsets & 0xFFFFFFFF).to(tl.uint32)
    high = (offsets >> 32).to(tl.uint32)
    zero = low * 0
    a, b, _, _ = tl.philox(seed, low, high, zero, zero)
    return a, b


@triton.jit
def _unit(bits):
    """The upper 24 bits as a multiple of 2^-24 in [0, 1)."""
    return (bits >> 8).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def uniform(seed, offsets):
    """One number of [0, 1) an element; `runtime.random.uniform` draws the same."""
    a, _ = _bits(seed, offsets)
    return _unit(a)


@triton.jit
def _cos_turns(turns):
    """cos(2 pi turns) for turns in [0, 1): Taylor's series of the sine within a quarter turn, right to 6e-8.

    `tl.cos` keeps an array in local memory for the reduction of large arguments, which there are none of here.
    """
    x = 6.283185307179586 * (0.25 - tl.abs(turns - 0.5))
    z = x * x
    series = -2.505210838544172e-8 * z + 2.7557319223985893e-6
    series = ((series * z - 1.984126984126984e-4) * z + 8.333333333333333e-3) * z - 1.6666666666666666e-1
    return -(x + x * z * series)


@triton.jit
def gaussian(seed, offsets):
    """One number of N(0, 1) an element (Box and Muller); `runtime.random.gaussian` draws the same."""
    a, b = _bits(seed, offsets)
    radius = tl.sqrt_rn(-2.0 * tl.log(1.0 - _unit(a)))
    return radius * _cos_turns(_unit(b))
