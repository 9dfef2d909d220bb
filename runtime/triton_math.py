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
    """-1, 0 or 1 in the dtype of x; 0 for NaN, as in `torch.sign`."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


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
def trunc(x):
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))


@triton.jit
def whole(x):
    """The nearest whole number, the even one where two are as near, as in `torch.round`."""
    low = tl.floor(x)
    over = x - low
    odd = tl.floor(low * 0.5) * 2.0 != low
    return tl.where((over > 0.5) | ((over == 0.5) & odd), low + 1.0, low)


@triton.jit
def fmod(a, b):
    """What division leaves, with the sign of `a`. GPUs divide floats to find it, and may be one quotient off."""
    rest = a % b
    if rest.dtype.is_floating():
        size = tl.where(b < 0, -b, b)
        rest = tl.where(a < 0, tl.where(rest > 0, rest - size, rest), tl.where(rest < 0, rest + size, rest))
        rest = tl.where(rest >= size, rest - size, tl.where(rest <= -size, rest + size, rest))
        rest = tl.where(size == float("inf"), tl.where(a - a == 0, a, float("nan")), rest)
    return rest


@triton.jit
def _arc(x):
    """asin of [0, 0.5] and, of what lies above, the half of pi / 2 - asin (Cephes' asinf)."""
    z = tl.where(x > 0.5, 0.5 - 0.5 * x, x * x)
    s = tl.where(x > 0.5, tl.sqrt_rn(z), x)
    series = ((4.2163199048e-2 * z + 2.4181311049e-2) * z + 4.5470025998e-2) * z + 7.4953002686e-2
    return (series * z + 1.6666752422e-1) * z * s + s


@triton.jit
def asin(x):
    size = tl.abs(x)
    arc = _arc(size)
    found = tl.where(size > 0.5, 1.5707963267948966 - 2.0 * arc, arc)
    return tl.where(x < 0, -found, found)


@triton.jit
def acos(x):
    size = tl.abs(x)
    arc = _arc(size)
    far = tl.where(x < 0, 3.141592653589793 - 2.0 * arc, 2.0 * arc)
    return tl.where(size > 0.5, far, 1.5707963267948966 - tl.where(x < 0, -arc, arc))


@triton.jit
def _atan_of_size(x):
    """atan of what is not negative (Cephes' atanf)."""
    large, middle = x > 2.414213562373095, x > 0.4142135623730950
    turned = tl.where(large, -1.0 / tl.where(large, x, 1.0), tl.where(middle, (x - 1.0) / (x + 1.0), x))
    start = tl.where(large, 1.5707963267948966, tl.where(middle, 0.7853981633974483, 0.0))
    z = turned * turned
    series = ((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z - 3.33329491539e-1
    return start + (series * z * turned + turned)


@triton.jit
def atan(x):
    found = _atan_of_size(tl.abs(x))
    return tl.where(x < 0, -found, found)


@triton.jit
def atan2(y, x):
    """The angle of (x, y) in [-pi, pi]; a negative zero has a sign, as in C."""
    y, x = y.to(tl.float32), x.to(tl.float32)
    tall, wide = tl.abs(y), tl.abs(x)
    top, low = maximum(tall, wide), minimum(tall, wide)
    ratio = tl.where(low == float("inf"), 1.0, low / tl.where(top == 0.0, 1.0, top))
    angle = _atan_of_size(ratio)
    angle = tl.where(tall > wide, 1.5707963267948966 - angle, angle)
    angle = tl.where(x.to(tl.int32, bitcast=True) < 0, 3.141592653589793 - angle, angle)
    return tl.where(y.to(tl.int32, bitcast=True) < 0, -angle, angle)


@triton.jit
def sinh(x):
    """Cephes' sinhf: a polynomial near 0. Halves of the exponent keep it finite as far as the result is."""
    z = x * x
    near = ((2.03721912945e-4 * z + 8.33028376239e-3) * z + 1.66667160211e-1) * z * x + x
    root = tl.exp(0.5 * tl.abs(x))
    far = 0.5 * root * root - 0.5 / root / root
    return tl.where(tl.abs(x) > 1.0, tl.where(x < 0, -far, far), near)


@triton.jit
def cosh(x):
    root = tl.exp(0.5 * tl.abs(x))
    return 0.5 * root * root + 0.5 / root / root


@triton.jit
def log10(x):
    return tl.log(x) * 0.4342944819032518


@triton.jit
def _shifted(x, n):
    """x * 2^n, in two steps: 2^n alone may be too large or too small."""
    half = tl.floor(n * 0.5)
    return x * tl.exp2(half) * tl.exp2(n - half)


@triton.jit
def _power_of_size(x, exponent):
    """x ** exponent of x > 0 as 2^(exponent * (whole + part)), whole + part = log2 x, |part| <= 0.5.

    The rounding of exponent * log2 x alone would cost a digit: what is whole is multiplied exactly, and left out of the
    sum that is rounded.
    """
    whole_log = tl.floor(tl.log2(x) + 0.5)
    part = tl.log2(_shifted(x, -whole_log))
    split = exponent * 4097.0
    high = split - (split - exponent)
    product = high * whole_log
    n = tl.floor(product + 0.5)
    return _shifted(tl.exp2((product - n) + ((exponent - high) * whole_log + exponent * part)), n)


@triton.jit
def power(x, exponent):
    """x ** exponent. A negative base has a real power where the exponent is a whole number, and NaN elsewhere.

    A negative zero counts as zero.
    """
    x, exponent = x * 1.0, exponent * 1.0
    size = tl.abs(x)
    plain = tl.exp2(exponent * tl.log2(size))
    found = tl.where(tl.where(exponent < 0, -exponent, exponent) == float("inf"), plain, _power_of_size(size, exponent))
    found = tl.where(size == 0.0, plain, tl.where(size == float("inf"), plain, found))
    found = tl.where(size == 1.0, 1.0, tl.where(exponent == 0.0, 1.0, found))
    whole = tl.floor(exponent) == exponent
    odd = whole & (tl.floor(exponent * 0.5) * 2.0 != exponent)
    broken = tl.where(size == float("inf"), found, float("nan"))
    return tl.where(x < 0, tl.where(whole, tl.where(odd, -found, found), broken), found)


@triton.jit
def _words(seed, counters):
    """Philox-4x32-10: four words of 32 bits for each counter."""
    counters = counters.to(tl.int64)
    low = (counters & 0xFFFFFFFF).to(tl.uint32)
    high = (counters >> 32).to(tl.uint32)
    zero = low * 0
    return tl.philox(seed, low, high, zero, zero)


@triton.jit
def _unit(bits):
    """The upper 24 bits as a multiple of 2^-24 in [0, 1)."""
    return (bits >> 8).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def uniform_at(seed, offsets):
    """One number of [0, 1) an element; `runtime.random.uniform` draws the same. Four elements share a counter."""
    a, b, c, d = _words(seed, offsets >> 2)
    at = offsets & 3
    return _unit(tl.where(at < 2, tl.where(at == 0, a, b), tl.where(at == 2, c, d)))


@triton.jit
def _uniform_of_fours(seed, counters):
    """The four numbers of each counter, side by side along the last dimension."""
    a, b, c, d = _words(seed, counters)
    return _unit(tl.interleave(tl.interleave(a, c), tl.interleave(b, d)))


@triton.jit
def uniform(seed, first, count: tl.constexpr):
    """`uniform_at` of the offsets from `first` on, [count], where four divides both: a counter is drawn once."""
    return _uniform_of_fours(seed, (first >> 2) + tl.arange(0, count // 4))


@triton.jit
def uniform_rows(seed, first, count: tl.constexpr, width: tl.constexpr):
    """`uniform_at` of the offsets from each of `first` on, [R, 1]: [R, count], of rows that are `width` apart.

    Where four divides `width`, it divides `first`, and a counter is drawn once for its four numbers.
    """
    if width % 4 == 0 and count % 4 == 0:
        found = _uniform_of_fours(seed, (first >> 2) + tl.arange(0, count // 4)[None, :])
    else:
        found = uniform_at(seed, first + tl.arange(0, count)[None, :])
    return found


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
    a, b, _, _ = _words(seed, offsets)
    radius = tl.sqrt_rn(-2.0 * tl.log(1.0 - _unit(a)))
    return radius * _cos_turns(_unit(b))


# The logarithm of e to base 2: softmax in powers of two saves a product an element.
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _rough_tanh(x):
    """To 3e-7 everywhere, so not in relation to results near 0, in a quarter of the operations."""
    return 1.0 - 2.0 / (tl.exp2(2.8853900817779268 * x) + 1.0)


@triton.jit
def tanh_for(x, dtype: tl.constexpr):
    """tanh as exactly as numbers of `dtype` need it."""
    return tanh(x) if dtype == tl.float32 else _rough_tanh(x)


@triton.jit
def alibi_slope(head, WHOLE: tl.constexpr):
    """The slope of a head with linear biases, where WHOLE is the greatest power of two up to the number of heads.

    In float64, as `runtime.nn_functions.alibi` has it: GPUs take powers of two in float32 roughly.
    """
    place = tl.where(head < WHOLE, head + 1.0, head - WHOLE + 0.5)
    return tl.exp2(place.to(tl.float64) * (-8.0 / WHOLE)).to(tl.float32)


@triton.jit
def matrix(ptr, strides, batch, head):
    """Where the matrix of a batch and a head begins in a tensor of four dimensions."""
    return ptr + tl.cast(batch, tl.int64) * strides[0] + tl.cast(head, tl.int64) * strides[1]


@triton.jit
def load_rows(ptr, first, n_rows, stride, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """The tile [ROWS, COLS] of a matrix [n_rows, WIDTH] from its row `first` on, zeros beyond it.

    `stride` leads from row to row; within one, numbers lie side by side.
    """
    rows = first + tl.arange(0, ROWS)[:, None]
    cols = tl.arange(0, COLS)[None, :]
    mask = rows < n_rows
    if WIDTH < COLS:
        mask = mask & (cols < WIDTH)
    return tl.load(ptr + rows.to(tl.int64) * stride + cols, mask=mask, other=0.0)


@triton.jit
def store_rows(ptr, tile, first, n_rows, stride, WIDTH: tl.constexpr):
    """Writes a tile to where `load_rows` would read it, what lies in the matrix."""
    rows = first + tl.arange(0, tile.shape[0])[:, None]
    cols = tl.arange(0, tile.shape[1])[None, :]
    mask = (rows < n_rows) & (cols < WIDTH)
    tl.store(ptr + rows.to(tl.int64) * stride + cols, tile, mask=mask)
