"""Expected values come from exact rational rounding (`fractions`), from numpy, from ml_dtypes where it rounds once, or are written out."""

import math
from bisect import bisect_left
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from surgery.casting import cast, check
from surgery.dtypes import DTYPES, numpy_dtype
from surgery.errors import ApplyError, PlanError

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in cast:RuntimeWarning")  # from numpy's own casts, here for comparison
FLOATS = [dtype for dtype in DTYPES.values() if dtype.kind == "float"]
INTEGERS = [dtype for dtype in DTYPES.values() if dtype.kind in ("int", "uint")]
NARROW = [dtype for dtype in FLOATS if dtype.bits <= 16]
WITHOUT_INF = [dtype for dtype in FLOATS if dtype.name.startswith(("float8_e4m3", "float8_e8m0", "float4")) or dtype.name == "float8_e5m2fnuz"]


def array(values, name):
    return np.array(values, numpy_dtype(DTYPES[name]))


def every_value(dtype):
    """All bit patterns of a type of at most 16 bits (of float4: the 16 that count)."""
    patterns = np.arange(16 if dtype.name.startswith("float4") else 1 << dtype.bits)
    return patterns.astype(f"u{dtype.bits // 8}").view(numpy_dtype(dtype))


def exactly(values, **policies):
    """Cast as a plain list, so that -0.0, NaN and types are compared by text."""
    target = policies.pop("to")
    result = cast(values, DTYPES[target], **policies)
    assert result.dtype == numpy_dtype(DTYPES[target])
    return result.tolist()


# ---- floats to floats


@pytest.mark.parametrize("target", FLOATS, ids=str)
@pytest.mark.parametrize("source", NARROW, ids=str)
def test_every_narrow_float_saturates_to_the_nearest_value_of_every_type(source, target):
    values = every_value(source)
    wide = values.astype(np.float64)
    if target.name.startswith("float4"):
        values, wide = values[~np.isnan(wide)], wide[~np.isnan(wide)]
    low, high = float(ml_dtypes.finfo(numpy_dtype(target)).min), float(ml_dtypes.finfo(numpy_dtype(target)).max)
    if source == target:
        low, high = -math.inf, math.inf
    expected = np.clip(wide, low, high).astype(np.float32 if target.bits < 64 else np.float64).astype(numpy_dtype(target))
    result = cast(values, target, overflow="saturate")
    numbers = ~np.isnan(wide)  # the bits behind a NaN are nobody's promise
    np.testing.assert_array_equal(result.view(f"u{target.itemsize}")[numbers], expected.view(f"u{target.itemsize}")[numbers])
    assert np.isnan(result[~numbers].astype(np.float64)).all()


@pytest.mark.parametrize("source", NARROW, ids=str)
@pytest.mark.parametrize("wide", ["float32", "float64"])
def test_widening_and_coming_back_keeps_every_bit_pattern(source, wide):
    values = every_value(source)
    there = cast(values, DTYPES[wide])
    np.testing.assert_array_equal(there, values.astype(wide))
    back = cast(there, source)
    numbers = ~np.isnan(there)
    np.testing.assert_array_equal(back.view(f"u{source.itemsize}")[numbers], values.view(f"u{source.itemsize}")[numbers])
    assert np.isnan(back.astype(np.float32)[~numbers]).all()


def finite_values(dtype):
    """All finite values with their bit patterns, in order."""
    return sorted((number, pattern) for pattern, number in enumerate(every_value(dtype).astype(np.float64).tolist()) if math.isfinite(number))


def nearest_even(value, table):
    """The entry of `finite_values` nearest to a finite float64, by exact fractions, None beyond its ends."""
    exact = Fraction(value)
    at = bisect_left(table, (value,))
    if at in (0, len(table)):
        return None
    (below, low_bits), (above, _) = table[at - 1], table[at]
    if value in (below, above):
        return value
    middle = (Fraction(below) + Fraction(above)) / 2
    if exact != middle:
        return below if exact < middle else above
    return below if low_bits % 2 == 0 else above


@pytest.mark.parametrize("target", [dtype for dtype in NARROW if not dtype.name.startswith("float8_e8m0")], ids=str)
def test_float64_rounds_once(target):
    random = np.random.default_rng(5)
    table = finite_values(target)
    numbers = np.unique([number for number, _ in table])
    picked = np.sort(random.choice(len(numbers) - 1, 150))
    middles = (numbers[picked] + numbers[picked + 1]) / 2
    hair = np.abs(middles) * 2.0**-40
    values = np.concatenate([middles, middles + hair, middles - hair, random.uniform(numbers[picked], numbers[picked + 1])])
    result = cast(values, target).astype(np.float64)
    np.testing.assert_array_equal(result, [nearest_even(value, table) for value in values.tolist()])


def test_float64_to_bfloat16_does_not_round_through_float32():
    value = 1 + 2.0**-8 + 2.0**-45  # just above the middle of 1 and 1 + 2**-7; float32 has it as the middle, which rounds to 1
    assert exactly(array([value, -value], "float64"), to="bfloat16") == [1.0078125, -1.0078125]


def test_float64_below_the_smallest_float32_is_not_lost_to_a_tie():
    value = 2.0**-134 + 2.0**-180
    assert exactly(array([value, 2.0**-134], "float64"), to="bfloat16") == [2.0**-133, 0.0]


def test_float32_to_bfloat16_rounds_half_to_even():
    assert exactly(array([1.00390625, 1.01171875, 1.00390637], "float32"), to="bfloat16") == [1.0, 1.015625, 1.0078125]


def test_subnormals_are_not_flushed():
    assert exactly(array([1e-40, 1e-45], "float32"), to="float64") == [9.99994610111476e-41, 1.401298464324817e-45]
    assert exactly(array([2.0**-24, 2.0**-133], "float64"), to="float16") == [2.0**-24, 0.0]
    assert exactly(array([2.0**-133], "float32"), to="bfloat16") == [2.0**-133]


def test_signed_zero_nan_and_infinity_stay():
    result = cast(array([-0.0, math.nan, math.inf, -math.inf], "float64"), DTYPES["bfloat16"])
    assert result.view("u2").tolist()[0] == 0x8000
    assert np.isnan(result[1])
    assert result[2:].tolist() == [math.inf, -math.inf]


def test_nan_in_a_long_tensor_does_not_hide_an_overflow():
    values = np.zeros(200_000, np.float32)
    values[7], values[150_000] = math.nan, 1e6
    with pytest.raises(ApplyError, match=r"`w` has the value 1000000, which float16 cannot hold"):
        cast(values, DTYPES["float16"], label="w")


LIMITS = [  # largest value that still rounds into the range, smallest that does not
    ("float32", 3.4028235677973362e38, 3.4028235677973366e38),
    ("float16", 65519.99609375, 65520.0),
    ("bfloat16", 2.0**128 - 2.0**119 - 2.0**104, 2.0**128 - 2.0**119),
    ("float8_e5m2", 61439.99609375, 61440.0),
    ("float8_e4m3fn", 464.0, 464.000030517578125),
    ("float8_e4m3fnuz", 247.99998474121094, 248.0),
    ("float8_e4m3b11fnuz", 30.999998092651367, 31.0),
    ("float8_e5m2fnuz", 61439.99609375, 61440.0),
    ("float4_e2m1fn", 6.9999995231628418, 7.0),
]


@pytest.mark.parametrize(("target", "inside", "outside"), LIMITS)
@pytest.mark.parametrize("source", ["float32", "float64"])
def test_the_first_value_out_of_range_is_an_error(source, target, inside, outside):
    if source == "float32" and target == "float32":
        return
    highest = float(ml_dtypes.finfo(numpy_dtype(DTYPES[target])).max)
    assert cast(array([inside, -inside], source), DTYPES[target]).astype(float).tolist() == [highest, -highest]
    for value in (outside, -outside):
        with pytest.raises(ApplyError) as error:
            cast(array([1.0, value], source), DTYPES[target], label="a/b")
        assert error.value.code == "overflow"
        assert "`a/b`" in error.value.title


def test_the_worst_value_is_named():
    with pytest.raises(ApplyError) as error:
        cast(array([7e4, -9e4, 1.0, math.inf], "float32"), DTYPES["float16"], label="w")
    assert str(error.value) == (
        "error[overflow]: `w` has the value -90000, which float16 cannot hold\n"
        "  note: float16 holds -65504 to 65504\n"
        "  help: use a wider type, or give `cast` the policy `overflow: saturate` or `overflow: inf`"
    )
    assert error.value.data == {"key": "w", "value": "-90000.0"}


@pytest.mark.parametrize("target", WITHOUT_INF, ids=str)
def test_infinity_into_a_type_without_it_is_an_error(target):
    with pytest.raises(ApplyError, match="the value inf"):
        cast(array([math.inf], "float32"), target)


@pytest.mark.parametrize("target", WITHOUT_INF, ids=str)
def test_overflow_inf_needs_a_type_with_infinities(target):
    assert check(DTYPES["float32"], target, "inf", "").code == "bad-policy"


def test_overflow_inf_goes_to_infinity():
    assert exactly(array([7e4, -7e4, 1.0], "float32"), to="float16", overflow="inf") == [math.inf, -math.inf, 1.0]
    assert exactly(array([7e4, -7e4], "float64"), to="float8_e5m2", overflow="inf") == [math.inf, -math.inf]


def test_saturation_clamps_infinities_too():
    assert exactly(array([math.inf, -math.inf, 1e9, 1.0], "float64"), to="float16", overflow="saturate") == [65504.0, -65504.0, 65504.0, 1.0]
    assert exactly(array([math.inf], "float32"), to="float64", overflow="saturate") == [1.7976931348623157e308]


def test_nan_into_a_type_without_it_is_an_error_under_every_policy():
    for overflow in ("error", "saturate"):
        with pytest.raises(ApplyError, match="NaN") as error:
            cast(array([1.0, math.nan], "float32"), DTYPES["float4_e2m1fn"], overflow=overflow)
        assert error.value.code == "nan-cast"


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0])
def test_a_scale_type_has_no_zero_and_no_negative_numbers(value):
    with pytest.raises(ApplyError, match="float8_e8m0fnu cannot hold"):
        cast(array([value], "float32"), DTYPES["float8_e8m0fnu"])
    assert exactly(array([value], "float32"), to="float8_e8m0fnu", overflow="saturate") == [2.0**-127]


def test_a_scale_type_rounds_to_powers_of_two():
    assert exactly(array([1e-300, 0.75, 1.49, 1.5, 3.0, 2.0**127 * 1.49], "float64"), to="float8_e8m0fnu") == [
        2.0**-127,
        1.0,
        1.0,
        2.0,
        4.0,
        2.0**127,
    ]


# ---- integers and bools


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [("nearest", [2, 2, -2, -2, 1]), ("floor", [1, 2, -2, -3, 0]), ("ceil", [2, 3, -1, -2, 1]), ("zero", [1, 2, -1, -2, 0])],
)
@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("target", ["int4", "int8", "int64"])
def test_floats_become_integers_by_the_rounding_asked_for(source, target, rounding, expected):
    assert exactly(array([1.5, 2.5, -1.5, -2.5, 0.75], source), to=target, rounding=rounding) == expected


@pytest.mark.parametrize(
    ("target", "low", "high"),
    [
        (dtype.name, *bounds)
        for dtype, bounds in zip(
            INTEGERS,
            [
                (-(2**7), 2**7 - 1),
                (0, 2**8 - 1),
                (-(2**15), 2**15 - 1),
                (0, 2**16 - 1),
                (-(2**31), 2**31 - 1),
                (0, 2**32 - 1),
                (-(2**63), 2**63 - 1),
                (0, 2**64 - 1),
                (-2, 1),
                (0, 3),
                (-8, 7),
                (0, 15),
            ],
            strict=True,
        )
    ],
)
def test_floats_saturate_to_the_ends_of_integer_types(target, low, high):
    for source in ("float32", "float64"):
        assert exactly(array([-1e30, -math.inf, 1.0, 1e30, math.inf, float(high + 1)], source), to=target, rounding="zero", overflow="saturate") == [
            low,
            low,
            1,
            high,
            high,
            high,
        ]
        assert exactly(array([float(low)], source), to=target, rounding="zero") == [low]
        with pytest.raises(ApplyError, match="cannot hold"):
            cast(array([0.0, float(high + 1)], source), DTYPES[target], rounding="zero")


def test_a_value_just_outside_may_round_into_the_range():
    assert exactly(array([127.4, -128.5], "float32"), to="int8", rounding="nearest") == [127, -128]
    assert exactly(array([-0.5], "float32"), to="uint8", rounding="nearest") == [0]


@pytest.mark.parametrize("overflow", ["error", "saturate"])
def test_nan_is_never_an_integer(overflow):
    with pytest.raises(ApplyError, match="NaN"):
        cast(array([math.nan], "float32"), DTYPES["int32"], rounding="nearest", overflow=overflow)


def test_integers_out_of_range_are_an_error():
    with pytest.raises(ApplyError, match=r"the value -129, which int8 cannot hold"):
        cast(array([128, -129, 5], "int64"), DTYPES["int8"])
    with pytest.raises(ApplyError, match=r"the value -1, which uint64 cannot hold"):
        cast(array([-1], "int8"), DTYPES["uint64"])
    with pytest.raises(ApplyError, match=r"the value 18446744073709551615, which int64 cannot hold"):
        cast(array([2**64 - 1], "uint64"), DTYPES["int64"])


def test_integers_saturate():
    assert exactly(array([300, -300, 5], "int32"), to="int8", overflow="saturate") == [127, -128, 5]
    assert exactly(array([-1, 127], "int8"), to="uint64", overflow="saturate") == [0, 127]
    assert exactly(array([2**64 - 1], "uint64"), to="int64", overflow="saturate") == [2**63 - 1]
    assert exactly(array([100, -100], "int64"), to="int4", overflow="saturate") == [7, -8]


def test_integers_wrap_modulo_their_width():
    assert exactly(array([128, -129, 511], "int64"), to="int8", overflow="wrap") == [-128, 127, -1]
    assert exactly(array([-1], "int64"), to="uint32", overflow="wrap") == [2**32 - 1]
    assert exactly(array([8, 17, -9], "int64"), to="int4", overflow="wrap") == [-8, 1, 7]
    assert exactly(array([5, -1], "int32"), to="uint2", overflow="wrap") == [1, 3]


@pytest.mark.parametrize("source", INTEGERS, ids=str)
@pytest.mark.parametrize("target", INTEGERS, ids=str)
def test_small_integers_keep_their_value_in_every_integer_type(source, target):
    assert exactly(array([0, 1], source.name), to=target.name) == [0, 1]


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [
        (2**53 + 1, "float64", 2.0**53),
        (2**24 + 1, "float32", 2.0**24),
        (2**62 + 2**38 + 1, "float32", 2.0**62 + 2.0**39),
        (2**62 + 2**54, "bfloat16", 2.0**62),
        (2**62 + 2**54 + 1, "bfloat16", 2.0**62 + 2.0**55),
        (-(2**62 + 2**54 + 1), "bfloat16", -(2.0**62 + 2.0**55)),
        (2**62 + 3 * 2**54 - 1, "bfloat16", 2.0**62 + 2.0**55),
        (2049, "float16", 2048.0),
        (65519, "float16", 65504.0),
        (2**63 - 1, "float32", 2.0**63),
    ],
)
def test_integers_round_once_to_floats(value, target, expected):
    assert exactly(array([value], "int64"), to=target) == [expected]


def test_integers_beyond_a_float_type_are_an_error():
    with pytest.raises(ApplyError, match=r"the value 65520, which float16"):
        cast(array([65520], "int64"), DTYPES["float16"])
    assert exactly(array([2**64 - 1], "uint64"), to="float16", overflow="saturate") == [65504.0]
    assert exactly(array([2**64 - 1], "uint64"), to="bfloat16") == [2.0**64]


def test_bools_become_zero_and_one():
    for target in ("int8", "uint4", "int64", "float16", "bfloat16", "float64", "float8_e4m3fn"):
        assert exactly(array([True, False], "bool"), to=target) == [1, 0]
    assert exactly(array([True, False], "bool"), to="complex64") == [1 + 0j, 0j]


def test_only_zero_and_one_become_bools():
    assert exactly(array([1, 0], "int4"), to="bool") == [True, False]
    with pytest.raises(ApplyError, match=r"the value -3, which bool cannot hold"):
        cast(array([1, 2, -3], "int8"), DTYPES["bool"])


# ---- complex, plans, arrays


def test_real_numbers_become_complex():
    assert exactly(array([1.5, -2.0], "bfloat16"), to="complex64") == [1.5 + 0j, -2 + 0j]
    assert exactly(array([2**24 + 1], "int64"), to="complex64") == [2.0**24 + 0j]


def test_complex_parts_are_rounded_and_checked_one_by_one():
    assert exactly(array([1 + 2.0**-30 - 2j], "complex128"), to="complex64") == [1 - 2j]
    with pytest.raises(ApplyError, match=r"the value -1e\+300, which complex64"):
        cast(array([1 - 1e300j], "complex128"), DTYPES["complex64"])
    assert exactly(array([1 - 1e300j], "complex128"), to="complex64", overflow="inf") == [complex(1, -math.inf)]


@pytest.mark.parametrize(
    ("source", "target", "overflow", "rounding", "code"),
    [
        ("float32", "int8", "error", "", "lossy-cast"),
        ("complex64", "float32", "error", "", "lossy-cast"),
        ("complex64", "int32", "error", "nearest", "lossy-cast"),
        ("complex64", "bool", "error", "", "lossy-cast"),
        ("float32", "bool", "error", "nearest", "lossy-cast"),
        ("float32", "int8", "error", "up", "bad-policy"),
        ("float32", "float16", "clip", "", "bad-policy"),
        ("float32", "int8", "wrap", "nearest", "bad-policy"),
        ("int32", "float16", "wrap", "", "bad-policy"),
        ("int32", "int8", "inf", "", "bad-policy"),
        ("int32", "bool", "saturate", "", "bad-policy"),
        ("int32", "bool", "wrap", "", "bad-policy"),
        ("string", "float32", "error", "", "no-cast"),
        ("float32", "qint8", "error", "nearest", "no-cast"),
        ("float32", "float4_e2m1fn_packed", "error", "", "no-cast"),
    ],
)
def test_the_plan_refuses(source, target, overflow, rounding, code):
    fault = check(DTYPES[source], DTYPES[target], overflow, rounding)
    assert isinstance(fault, PlanError)
    assert (fault.code, bool(fault.help)) == (code, True)


def test_the_lossy_cast_text():
    assert str(check(DTYPES["float32"], DTYPES["int8"], "error", "")) == (
        "error[lossy-cast]: float32 to int8 loses values and needs a policy\n"
        "  help: add `rounding: nearest` and `overflow: saturate`, or use a float type"
    )


def test_what_the_plan_refuses_is_not_computed_either():
    with pytest.raises(PlanError, match="loses values"):
        cast(array([1.0], "float32"), DTYPES["int8"])


@pytest.mark.parametrize(
    ("source", "target"), [("float32", "float32"), ("string", "string"), ("float64", "int4"), ("int8", "float16"), ("bool", "int8")]
)
def test_the_plan_allows(source, target):
    assert check(DTYPES[source], DTYPES[target], "saturate", "nearest") is None


def test_the_same_type_is_the_same_array():
    values = array([math.inf, math.nan], "float32")
    assert cast(values, DTYPES["float32"], overflow="saturate") is values


def test_big_endian_and_strided_arrays_come_out_little_endian_in_order():
    values = np.arange(6, dtype=">f4").reshape(2, 3).T
    for target in ("float32", "float16", "int16"):
        result = cast(values, DTYPES[target], rounding="nearest")
        assert result.dtype == numpy_dtype(DTYPES[target])
        assert result.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert cast(np.array([1 + 2j, 3 + 4j], ">c8"), DTYPES["complex128"]).tolist() == [1 + 2j, 3 + 4j]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1)])
def test_shapes_stay(shape):
    assert cast(np.ones(shape, np.float32), DTYPES["bfloat16"]).shape == shape


# ---- in the order of memory


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_a_transposed_array_is_cast_as_it_lies(order):
    values = np.arange(2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5).transpose(order)
    result = cast(values, DTYPES["float64"])
    assert result.tolist() == values.tolist()
    assert [stride // 8 for stride in result.strides] == [stride // 4 for stride in values.strides]


@pytest.mark.parametrize("window", [np.s_[::2, 1:], np.s_[:, ::-1], np.s_[1], np.s_[:, 2:3], np.s_[:0]], ids=str)
def test_an_array_with_holes_or_turned_round_is_cast_in_its_own_order(window):
    values = np.arange(6 * 5, dtype=np.float32).reshape(6, 5)[window]
    assert cast(values, DTYPES["float64"]).tolist() == values.tolist()
    assert cast(values.T, DTYPES["int16"], rounding="nearest").tolist() == values.T.tolist()
