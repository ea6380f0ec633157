"""Make the files beside this one: `python make.py`, with gguf 0.19.0 and numpy 2.4.6 installed."""

import json
from hashlib import sha256, shake_256
from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).parent
TYPES = gguf.GGMLQuantizationType
RAMP = np.linspace(-2, 2, 1024, dtype="<f4").reshape(2, 512)


def write(name, tensors, *, endianess=gguf.GGUFEndian.LITTLE, alignment=None):
    writer = gguf.GGUFWriter(HERE / name, "tiny", endianess=endianess)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_name("Größe")
    writer.add_uint8("a.uint8", 255)
    writer.add_int8("a.int8", -128)
    writer.add_uint16("a.uint16", 65535)
    writer.add_int16("a.int16", -32768)
    writer.add_uint32("a.uint32", 4294967295)
    writer.add_int32("a.int32", -2147483648)
    writer.add_uint64("a.uint64", 2**64 - 1)
    writer.add_int64("a.int64", -(2**63))
    writer.add_float32("a.float32", 1e-5)
    writer.add_float64("a.float64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_array("tokenizer.ggml.tokens", ["<s>", "ä", 'quo"te'])
    writer.add_array("tokenizer.ggml.scores", [0.0, -1.5, 0.1])
    writer.add_array("tokenizer.ggml.token_type", [1, 2, 3])
    for key, (array, code) in tensors.items():
        writer.add_tensor(key, array, raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


plain = {
    "token_embd.weight": (np.arange(6, dtype="<f4").reshape(2, 3), None),
    "f16": (np.arange(4, dtype="<f2"), None),
    "f64": (np.array([[0.5], [-0.5]]), None),
    "i8": (np.array([1, -1], "i1"), None),
    "i16": (np.array([300, -300], "<i2"), None),
    "i32": (np.array(7, "<i4"), None),
    "i64": (np.array([1 << 40], "<i8"), None),
}
bf16 = {"bf16": (gguf.quants.quantize(RAMP[:1, :4], TYPES.BF16), TYPES.BF16)}
write("plain.gguf", plain | bf16)
write("big.gguf", {key: (array.copy(), code) for key, (array, code) in plain.items()}, endianess=gguf.GGUFEndian.BIG)
write("aligned.gguf", plain, alignment=128)

quantised = {}
for code in TYPES:
    try:
        quantised[code.name.lower()] = (gguf.quants.quantize(RAMP, code), code)
    except NotImplementedError:
        block, nbytes = gguf.GGML_QUANT_SIZES[code]
        if block > 1:  # nobody looks into the blocks
            quantised[code.name.lower()] = (np.arange(2 * 512 // block * nbytes).astype("u1").reshape(2, -1), code)
write("quantised.gguf", {key: found for key, found in quantised.items() if gguf.GGML_QUANT_SIZES[found[1]][0] > 1})

reader = gguf.GGUFReader(HERE / "quantised.gguf")
facts = {
    tensor.name: [int(tensor.tensor_type), tensor.shape.tolist()[::-1], tensor.n_bytes, sha256(tensor.data.tobytes()).hexdigest()]
    for tensor in reader.tensors
}
(HERE / "quantised.json").write_text("{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(fact)}" for key, fact in facts.items()) + "\n}\n")


def some_blocks(code):
    """64 blocks of bits like any others; scales that are infinite or NaN are among them."""
    nbytes = gguf.GGML_QUANT_SIZES[code][1]
    return np.frombuffer(shake_256(code.name.lower().encode()).digest(64 * nbytes), "u1").reshape(2, 32 * nbytes)


def digest_of(numbers):
    """With one NaN for all, since processors differ in its bits."""
    return sha256(np.where(np.isnan(numbers), np.float32("nan"), numbers).astype("<f4").tobytes()).hexdigest()


digests = {}
with np.errstate(all="ignore"):
    for code in sorted(gguf.quants._type_traits, key=lambda code: code.name):
        if gguf.GGML_QUANT_SIZES[code][0] > 1:
            digests[code.name.lower()] = digest_of(gguf.quants.dequantize(some_blocks(code), code))
(HERE / "dequantised.json").write_text(json.dumps(digests, indent=1) + "\n")

writer = gguf.GGUFWriter(HERE / "split.gguf", "tiny", split_max_tensors=2)
writer.add_name("Größe")
for number in range(5):
    writer.add_tensor(f"blk.{number}.w", np.full((2, 3), number, "<f4"))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
