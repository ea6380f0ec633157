import numpy as np
import pytest

from surgery.dtypes import DTYPES
from surgery.errors import ApplyError
from surgery.expr import Stored, Transpose
from surgery.tasks import Check
from surgery.tensors import Extent, Fingerprint, SourceFile, TensorSpec
from surgery.value_checks import check_bytes, check_values


def tensor(values, dtype="float32"):
    """A stored tensor; its bytes are the name of its file, from which `read` takes them."""
    data = np.asarray(values).tobytes()
    file = SourceFile(data.hex(), Fingerprint(len(data), 0, 0, 0))
    return Stored(Extent(file, 0, len(data), TensorSpec(DTYPES[dtype], np.shape(values))))


def read(file, start, stop):
    return bytes.fromhex(file.path)[start:stop]


def check(kind, first, second=None, **more):
    return Check(kind, 1, "a", first, "b" if second is not None else "", second, **more)


@pytest.mark.parametrize("budget", [8, 16, 64, 1 << 20])
def test_the_first_position_does_not_depend_on_the_budget(budget):
    values = np.zeros((4, 3), np.float32)
    values[2, 1] = values[3, 0] = np.inf
    with pytest.raises(ApplyError, match=r"`a` is not finite: value inf at \[2, 1\]"):
        check_values(check("finite", tensor(values)), read, budget)


def test_a_position_beyond_the_first_piece_is_found():
    values = np.zeros(70_000, np.float16)
    values[69_000] = np.nan
    with pytest.raises(ApplyError, match=r"value nan at \[69000\]"):
        check_values(check("finite", tensor(values, "float16")), read, 1 << 20)


def test_a_position_is_one_of_the_transposed_tensor():
    values = np.array([[1, 2, 3], [4, 5, np.nan]], np.float32)
    with pytest.raises(ApplyError, match=r"at \[2, 1\]"):
        check_values(check("finite", Transpose(tensor(values), (1, 0))), read, 1 << 20)


def test_a_scalar_has_no_position():
    with pytest.raises(ApplyError, match=r"value nan at \[\]"):
        check_values(check("finite", tensor(np.float32(np.nan))), read, 1 << 20)


def test_equal_is_about_bits():
    check_values(check("equal", tensor(np.float32([np.nan, 1])), tensor(np.float32([np.nan, 1]))), read, 4)
    with pytest.raises(ApplyError, match=r"`a` differs from `b`: value 0.0 at \[0\]"):
        check_values(check("equal", tensor(np.float32([0, 1])), tensor(np.float32([-0.0, 1]))), read, 4)


def test_close_compares_small_floats_exactly():
    first, second = tensor(np.float16([1, 2]), "float16"), tensor(np.float16([1, 2.002]), "float16")
    check_values(check("close", first, second, rtol=0.0, atol=0.002), read, 4)
    with pytest.raises(ApplyError, match=r"`a` is not close to `b`: value 2.0 at \[1\]"):
        check_values(check("close", first, second, rtol=0.0, atol=0.0019), read, 4)


@pytest.mark.parametrize("budget", [1, 6, 1 << 20])
def test_a_digest_does_not_depend_on_the_budget(budget):
    transposed = Transpose(tensor(np.uint8([[1, 2], [3, 4]]), "uint8"), (1, 0))
    digest = "ac49441bd928148d4c95ef73c583afd9eb85a9c7c9546b1d7221cfdd95dfaed3"  # of 01 03 02 04
    check_values(check("sha256", transposed, digest=digest), read, budget)
    with pytest.raises(ApplyError, match=f"`a` has sha256 {digest}, not 0000"):
        check_values(check("sha256", transposed, digest="0" * 64), read, budget)


def test_what_a_check_costs_is_cut_to_the_budget():
    first, second = tensor(np.zeros((100, 4), np.float32)), tensor(np.zeros((100, 4), np.float32))
    assert check_bytes(check("finite", first), 1 << 20) == 1600
    assert 1600 < check_bytes(check("equal", first, second), 2000) <= 2000
