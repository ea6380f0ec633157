import statistics

import numpy as np
import pytest

from surgery.dtypes import DTYPES, numpy_dtype
from surgery.errors import ApplyError, RecipeError
from surgery.initializers import DEFAULTS, check, fans, fill, parse
from surgery.randomness import random_bits, standard_normal
from surgery.tensors import TensorSpec


def spec(dtype, *shape):
    return TensorSpec(DTYPES[dtype], shape)


def whole(init, dtype, *shape, seed=1, key="w"):
    return fill(parse(init), spec(dtype, *shape), seed, key, tuple((0, size) for size in shape))


# ---- what a recipe may say


def test_a_name_alone_has_the_defaults_of_keras():
    assert parse("normal").options == {"mean": 0.0, "std": 0.05}
    assert parse("uniform").options == {"min": -0.05, "max": 0.05}
    assert parse("orthogonal").options == {"gain": 1.0}


def test_given_options_replace_defaults():
    assert parse({"normal": {"std": 0.02}}).options == {"mean": 0.0, "std": 0.02}


def test_a_constant_may_be_short():
    assert parse({"constant": 3}) == parse({"constant": {"value": 3}})


def test_an_initializer_prints_as_a_call():
    assert str(parse({"normal": {"std": 0.02}})) == "normal(mean=0.0, std=0.02)"
    assert str(parse({"he_normal": {"fan": ["out", "in"]}})) == "he_normal(fan=[out, in])"
    assert str(parse("zeros")) == "zeros"


@pytest.mark.parametrize(
    ("init", "title", "help"),
    [
        ("nromal", "no initializer is called `nromal`", "did you mean `normal`?"),
        ({"normal": {"stddev": 1}}, "`normal` has no option `stddev`", "did you mean `std`?"),
        ({"zeros": {"x": 1}}, "`zeros` has no option `x`", "it has no options"),
        ({"normal": 3}, "the options of `normal` are a mapping", "it has `mean`, `std`"),
        ({"he_normal": {"fan": ["in", "in"]}}, "`fan` names the axes", "use `[in, out]` (TensorFlow, Keras) or `[out, in]` (PyTorch)"),
        ({"uniform": {"min": 1, "max": 0}}, "`min` 1 is above `max` 0", "exchange them"),
        ({"zeros": {}, "ones": {}}, "an initializer is a name, or one name with its options", "for example `init: {normal: {std: 0.02}}`"),
    ],
)
def test_mistakes_are_explained(init, title, help):
    with pytest.raises(RecipeError) as error:
        parse(init)
    assert (error.value.code, error.value.title, error.value.help) == ("bad-initializer", title, help)


@pytest.mark.parametrize(
    "init",
    [{"normal": {"std": "x"}}, {"normal": {"std": -1}}, {"normal": {"mean": float("nan")}}, {"normal": {"std": True}}, {"constant": "a"}, {}, 3],
)
def test_values_of_the_wrong_kind_are_refused(init):
    with pytest.raises(RecipeError):
        parse(init)


@pytest.mark.parametrize(
    ("init", "wanted", "reason"),
    [
        ("eye", spec("float32", 3), "eye makes matrices, and the shape is [3]"),
        ("orthogonal", spec("float32", 3), "orthogonal needs two axes or more, and the shape is [3]"),
        ("normal", spec("int32", 3), "normal makes real numbers of either sign, and the dtype is int32"),
        ("normal", spec("complex64", 3), "normal makes real numbers of either sign, and the dtype is complex64"),
        ("zeros", spec("string", 3), "values of string cannot be made"),
        ("zeros", spec("float8_e8m0fnu"), "float8_e8m0fnu cannot hold 0"),
        ({"constant": 1.5}, spec("int32"), "int32 cannot hold 1.5"),
        ({"constant": 200}, spec("int8"), "int8 cannot hold 200"),
        ({"constant": float("inf")}, spec("int8"), "int8 cannot hold inf"),
        ({"constant": float("nan")}, spec("int8"), "int8 cannot hold nan"),
        ({"constant": 8}, spec("int4"), "int4 cannot hold 8"),
        ({"constant": 2}, spec("bool"), "bool cannot hold 2"),
        ({"constant": 70000}, spec("float16"), "float16 cannot hold 70000"),
        ({"constant": 70000}, spec("bfloat16"), None),
        ({"constant": True}, spec("bool"), None),
        ({"constant": 2**63}, spec("uint64"), None),
        ({"constant": float("nan")}, spec("float16"), None),
        ("ones", spec("complex64", 2), None),
        ("eye", spec("int2", 2, 3), None),
        ("glorot_uniform", spec("float8_e4m3fn"), None),
    ],
)
def test_what_fits_what(init, wanted, reason):
    assert check(parse(init), wanted) == reason


# ---- values that are known


@pytest.mark.parametrize("dtype", ["bool", "int4", "uint64", "float32", "float8_e4m3fn", "complex64"])
def test_zeros_and_ones_exist_in_every_type(dtype):
    assert whole("zeros", dtype, 2).tolist() == [0, 0]
    assert whole("ones", dtype, 2).tolist() == [1, 1]
    assert whole("ones", dtype).dtype == numpy_dtype(DTYPES[dtype])


def test_large_integer_constants_are_exact():
    assert whole({"constant": 2**63 + 1}, "uint64", 1).tolist() == [2**63 + 1]


def test_eye_has_ones_on_its_diagonal_in_every_region():
    assert whole("eye", "float32", 2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert fill(parse("eye"), spec("bfloat16", 5, 5), 0, "w", ((2, 4), (3, 5))).tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("shape", "order", "expected"),
    [
        ((), ("in", "out"), (1, 1)),
        ((7,), ("in", "out"), (7, 7)),
        ((3, 5), ("in", "out"), (3, 5)),
        ((2, 2, 3, 5), ("in", "out"), (12, 20)),
        ((3, 5), ("out", "in"), (5, 3)),
        ((5, 3, 2, 2), ("out", "in"), (12, 20)),
    ],
)
def test_fans(shape, order, expected):
    assert fans(shape, order) == expected


# ---- random bits: these literals are a promise to every recipe that names a seed


def test_bits_are_the_documented_hash():
    assert random_bits(0, "w", np.array([0, 1, 2**40], np.uint64)).tolist() == [0xF6DE8851767B80E3, 0x993313AF237E994D, 0xEE8D727B52C2C3F8]
    assert random_bits(7, "encoder/ü", np.array([0], np.uint64)).tolist() == [0x0D2AE2B277EDC422]


@pytest.mark.parametrize(
    ("init", "dtype", "expected"),
    [
        ("uniform", "float32", "f13321bd 5b7d07bd 0cc352b9"),
        ("uniform", "float64", "ddfea21d7e26a4bf ed967d56abefa0bf 0055348f61582abf"),
        ("uniform", "bfloat16", "21bd 07bd 53b9"),
        ("normal", "float32", "481e7fbd b00c44bd 751384b9"),
        ("normal", "float64", "1f7e6ef4c8e3afbf 6ab312f59581a8bf 89be4a956e8230bf"),
        ("normal", "bfloat16", "7fbd 44bd 84b9"),
        ("truncated_normal", "float32", "763e6cbd 782938bd 07227cb9"),
        ("truncated_normal", "float64", "2a3f95c3ce87adbf 14e022f02e05a7bf 6811eedb40842fbf"),
        ("truncated_normal", "bfloat16", "6cbd 38bd 7cb9"),
        ("glorot_uniform", "float32", "c49630bd e76b14bd cbe066b9"),
        ("glorot_uniform", "float64", "1010d176d812a6bf 343cafdc7c8da2bf 00650e6d19dc2cbf"),
        ("glorot_uniform", "bfloat16", "31bd 14bd 67b9"),
        ("he_normal", "float32", "233870bd ca423bbd 133080b9"),
        ("he_normal", "float64", "f577d4630407aebf cbe765315968a7bf 57e4cd5d020630bf"),
        ("he_normal", "bfloat16", "70bd 3bbd 80b9"),
    ],
)
def test_values_never_change(init, dtype, expected):
    places = (0, 0), (0, 1), (999, 999)
    made = [fill(parse(init), spec(dtype, 1000, 1000), 7, "bert/w", ((row, row + 1), (column, column + 1))) for row, column in places]
    assert " ".join(value.tobytes().hex() for value in made) == expected


@pytest.mark.parametrize("init", ["uniform", "normal", "truncated_normal", "lecun_normal", "orthogonal"])
def test_regions_do_not_change_values(init):
    tensor = whole(init, "float32", 40, 3, 50)
    for region in [
        ((0, 40), (1, 2), (3, 9)),
        ((5, 6), (0, 3), (0, 50)),
        ((2, 3), (0, 1), (49, 50)),
        ((1, 1), (0, 3), (0, 50)),
        ((7, 30), (0, 3), (0, 50)),
    ]:
        part = fill(parse(init), spec("float32", 40, 3, 50), 1, "w", region)
        assert part.tobytes() == tensor[tuple(slice(*pair) for pair in region)].tobytes()


def test_long_rows_made_in_pieces_are_the_same_as_made_at_once():
    tensor = whole("uniform", "float32", 2, 100_000)
    assert fill(parse("uniform"), spec("float32", 2, 100_000), 1, "w", ((1, 2), (32_760, 32_776))).tobytes() == tensor[1, 32_760:32_776].tobytes()


def test_seed_and_key_change_every_value():
    first = whole("normal", "float64", 1000)
    assert not np.any(first == whole("normal", "float64", 1000, seed=2))
    assert not np.any(first == whole("normal", "float64", 1000, key="v"))


def test_keys_that_are_not_utf8_have_values_too():
    assert whole("normal", "float32", 2, key="a\udcff").shape == (2,)


# ---- distributions


def test_normals_are_the_inverse_of_the_distribution_function():
    bits = np.concatenate([np.array([0, 2**63, 2**64 - 1, 2**40, 2**20], np.uint64), random_bits(1, "w", np.arange(2000, dtype=np.uint64))])
    expected = [statistics.NormalDist().inv_cdf(((number >> 12) * 2 + 1) / 2**53) for number in bits.tolist()]
    np.testing.assert_allclose(standard_normal(bits), expected, rtol=4e-15)


@pytest.mark.parametrize(
    ("init", "mean", "std", "low", "high"),
    [
        ({"normal": {"mean": 1, "std": 2}}, 1.0, 2.0, -10.0, 12.0),
        ({"truncated_normal": {"mean": 1, "std": 2}}, 1.0, 1.7592513, -3.0, 5.0),
        ({"uniform": {"min": -1, "max": 3}}, 1.0, 1.1547005, -1.0, 3.0),
        ("glorot_uniform", 0.0, 0.0577350, -0.1, 0.1),  # sqrt(2 / (200 + 400)), limit sqrt(6 / 600)
        ("glorot_normal", 0.0, 0.0577350, -0.1312713, 0.1312713),
        ("he_normal", 0.0, 0.1, -0.2273694, 0.2273694),  # sqrt(2 / 200)
        ("he_uniform", 0.0, 0.1, -0.1732051, 0.1732051),
        ("lecun_normal", 0.0, 0.0707107, -0.1607745, 0.1607745),  # sqrt(1 / 200)
        ("lecun_uniform", 0.0, 0.0707107, -0.1224745, 0.1224745),
        ({"he_normal": {"fan": ["out", "in"]}}, 0.0, 0.0707107, -0.1607745, 0.1607745),  # sqrt(2 / 400)
    ],
)
def test_mean_deviation_and_bounds(init, mean, std, low, high):
    values = whole(init, "float64", 200, 400)
    assert values.mean() == pytest.approx(mean, abs=4 * std / 80_000**0.5)
    assert values.std() == pytest.approx(std, rel=0.01)
    assert low - 1e-7 <= values.min()
    assert values.max() <= high + 1e-7


def test_neighbours_are_not_correlated():
    values = whole("normal", "float64", 100_000)
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.01
    assert abs(np.corrcoef(values, whole("normal", "float64", 100_000, key="x"))[0, 1]) < 0.01


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 2, 3), (4, 4)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    matrix = whole({"orthogonal": {"gain": 2}}, "float64", *shape).reshape(-1, shape[-1])
    small = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)


@pytest.mark.parametrize("init", DEFAULTS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_initializer_makes_its_spec(init, dtype):
    made = whole(init, dtype, 4, 6)
    assert (made.shape, made.dtype) == ((4, 6), numpy_dtype(DTYPES[dtype]))
    assert whole(init, dtype, 0, 6).shape == (0, 6)


def test_a_random_value_out_of_range_names_the_key():
    with pytest.raises(ApplyError, match="`w` has the value"):
        whole({"normal": {"std": 1e6}}, "float16", 10)
