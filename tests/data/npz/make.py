"""Make the files beside this one: `python make.py`, with numpy 2.4.6 and ml_dtypes 0.6.0 installed."""

from pathlib import Path

import ml_dtypes
import numpy as np

HERE = Path(__file__).parent
MATRIX = np.arange(6, dtype="<f4").reshape(2, 3)

arrays = {
    "w": MATRIX,
    "fortran": np.asfortranarray(MATRIX),
    "big": MATRIX.astype(">f4"),
    "größe": np.array([7], "<i8"),
    "scalar": np.array(True),
    "none": np.zeros((0, 4), "<f2"),
}
np.savez(HERE / "plain.npz", **arrays)
np.savez_compressed(HERE / "deflated.npz", **arrays, fortran_big=np.asfortranarray(MATRIX.astype(">f4")), half=np.array([1, 2], ">f2"))
np.save(HERE / "one.npy", MATRIX)
np.save(HERE / "fortran.npy", np.asfortranarray(MATRIX))
with (HERE / "version2.npy").open("wb") as file:
    np.lib.format.write_array(file, MATRIX, version=(2, 0))
with (HERE / "version3.npy").open("wb") as file:
    np.lib.format.write_array(file, MATRIX, version=(3, 0))

np.save(HERE / "object.npy", np.array([{}, 1], object), allow_pickle=True)
np.save(HERE / "bfloat16.npy", MATRIX.astype(ml_dtypes.bfloat16))
np.save(HERE / "float8.npy", MATRIX.astype(ml_dtypes.float8_e4m3fn))
np.save(HERE / "structured.npy", np.zeros(2, [("a", "<f4"), ("b", "<i4")]))
np.save(HERE / "text.npy", np.array(["a", "bc"]))
np.save(HERE / "bytes.npy", np.array([b"a", b"bc"]))
np.save(HERE / "date.npy", np.array(["2020-01-01"], "datetime64[D]"))
np.save(HERE / "extended.npy", np.zeros(2, np.longdouble))
