#!/usr/bin/env python3
"""Write expected/<id>.json for each entry of files.json, with each format's own reference library, never with this project's code.

    python make.py CACHE OUT [--only ID,...] [--formats f1,f2]

CACHE is what `tests/peers/real_files.py` filled (`.corpus/`). Needs, by format: torch, safetensors, h5py, numpy, onnx, tensorflow.
tfjs needs node and the npm packages @tensorflow/tfjs-core and tfjs-backend-cpu in the folder $TFJS_NODE_MODULES.

Rows are [name, dtype, shape, sha256]: sha256 over the elements as little-endian bytes in C order; strings have none. ONNX: initializers, then
outputs of Constant nodes, then those of nested graphs as PATH/NAME.
"""
import argparse, hashlib, io, json, os, pickle, subprocess, sys, types, zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np


def row(name, arr, dtype=None):
    """One oracle line for a numpy array."""
    arr = np.asarray(arr)
    if arr.dtype.kind in "OSU":
        return [name, "string", list(arr.shape), None]
    little = np.ascontiguousarray(arr).astype(arr.dtype.newbyteorder("<"), copy=False)
    return [name, dtype or arr.dtype.name, list(arr.shape), hashlib.sha256(little.tobytes()).hexdigest()]


# ---------------------------------------------------------------- PyTorch
def torch_row(name, t):
    import torch
    dtype = str(t.dtype).replace("torch.", "")
    raw = t.detach().cpu().contiguous()
    data = raw.reshape(-1).view(torch.uint8).numpy().tobytes() if raw.numel() else b""
    return [name, dtype, list(t.shape), hashlib.sha256(data).hexdigest()]


def flatten(obj, is_leaf, path=()):
    if isinstance(obj, dict) and not is_leaf(obj):
        for k, v in obj.items():
            yield from flatten(v, is_leaf, path + (k,))
    elif isinstance(obj, (list, tuple)) and any(is_leaf(x) or isinstance(x, (dict, list)) for x in obj):
        for i, v in enumerate(obj):
            yield from flatten(v, is_leaf, path + (i,))
    else:
        yield path, obj


def plain_key(k):
    return k if isinstance(k, (str, int)) else repr(k)


def torch_tree(obj):
    import torch
    out = {"tensors": [], "non_tensors": []}
    paths, storages = {}, {}
    for path, leaf in flatten(obj, torch.is_tensor):
        name = ".".join(str(plain_key(p)) for p in path)
        if torch.is_tensor(leaf):
            out["tensors"].append(torch_row(name, leaf))
            if len(path) > 1:
                paths[name] = [plain_key(p) for p in path]
            if leaf.numel():
                storages.setdefault(leaf.untyped_storage().data_ptr(), []).append(name)
        else:
            text = leaf if isinstance(leaf, str) else repr(leaf) if isinstance(leaf, (int, float, bool, type(None))) else ""
            out["non_tensors"].append([name, type(leaf).__name__, str(text)[:80]])
    if paths:
        out["paths"] = paths
    out["aliases"] = [v for v in storages.values() if len(v) > 1]
    return out


def stub_pickle():
    """A pickle module that lets torch build tensors but replaces every class
    from a module that is not torch/collections/builtins by an inert one."""
    class Inert:
        def __init__(self, *a, **k): pass
        def __setstate__(self, s): pass
        def __call__(self, *a, **k): return self
        def append(self, x): pass
        def extend(self, x): pass
        def __setitem__(self, k, v): pass
    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if module.split(".")[0] in ("torch", "collections", "numpy", "_codecs") or (module == "builtins" and name in ("int", "float", "list", "dict", "set", "tuple", "bool", "str", "complex", "bytearray")):
                return super().find_class(module, name)
            return Inert
    m = types.ModuleType("stub_pickle")
    m.Unpickler, m.load, m.loads = Unpickler, pickle.load, pickle.loads
    m.Pickler, m.dump, m.dumps = pickle.Pickler, pickle.dump, pickle.dumps
    m.UnpicklingError, m.HIGHEST_PROTOCOL = pickle.UnpicklingError, pickle.HIGHEST_PROTOCOL
    return m


def read_torch(path, entry):
    import torch
    if entry["expect"] == "load":
        out = torch_tree(torch.load(path, map_location="cpu", weights_only=True))
        out["reader"] = f"torch {torch.__version__} torch.load(weights_only=True)"
        return out
    out = {"tensors": None, "reader": f"torch {torch.__version__}"}
    if zipfile.is_zipfile(path):
        out["unsafe_globals"] = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    if entry["expect"] == "unsafe-globals":
        out.update(torch_tree(torch.load(path, map_location="cpu", weights_only=False, pickle_module=stub_pickle())))
        out["reader"] += " torch.load, foreign classes replaced by inert ones"
    return out


def read_torchscript(path, entry):
    import torch
    m = torch.jit.load(path, map_location="cpu")
    return {"reader": f"torch {torch.__version__} torch.jit.load(...).state_dict()",
            "tensors": [torch_row(k, v) for k, v in m.state_dict().items()]}


# ---------------------------------------------------------------- others
def read_safetensors(path, entry):
    import safetensors
    from safetensors import safe_open
    with safe_open(path, "pt") as f:
        return {"reader": f"safetensors {safetensors.__version__}", "metadata": f.metadata(),
                "tensors": [torch_row(k, f.get_tensor(k)) for k in f.keys()]}


def read_tf(path, entry):
    import tensorflow as tf
    r = tf.compat.v1.train.NewCheckpointReader(path)  # takes a prefix as it is, even one that is a folder
    dtypes = r.get_variable_to_dtype_map()
    rows = []
    for name in sorted(dtypes):
        if dtypes[name] == tf.string:
            rows.append([name, "string", list(r.get_variable_to_shape_map()[name]), None])
        else:
            rows.append(row(name, r.get_tensor(name), dtypes[name].name))
    return {"reader": f"tensorflow {tf.__version__} tf.compat.v1.train.NewCheckpointReader", "tensors": rows}


def h5_tree(f):
    import h5py
    rows, order = [], []
    f.visititems(lambda n, o: rows.append(row(n, o[()])) if isinstance(o, h5py.Dataset) else None)
    top = f["model_weights"] if "model_weights" in f else f
    text = lambda b: b.decode() if isinstance(b, bytes) else str(b)
    for layer in top.attrs.get("layer_names", []):
        for w in top[text(layer)].attrs.get("weight_names", []):
            order.append([text(layer), text(w)])
    out = {"reader": f"h5py {h5py.__version__}, names are the full dataset paths", "tensors": rows}
    if order:
        out["weight_names"] = order
        out["weight_root"] = top.name
    return out


def read_h5(path, entry):
    import h5py
    with h5py.File(path, "r") as f:
        return h5_tree(f)


def read_keras_v3(path, entry):
    import h5py
    with zipfile.ZipFile(path) as z:
        with h5py.File(io.BytesIO(z.read("model.weights.h5")), "r") as f:
            out = h5_tree(f)
        out["archive_members"] = z.namelist()
        out["metadata"] = json.loads(z.read("metadata.json"))
    out["reader"] += ", inside model.weights.h5 of the archive"
    return out


def read_npz(path, entry):
    with np.load(path, allow_pickle=False) as z:
        return {"reader": f"numpy {np.__version__}", "tensors": [row(k, z[k]) for k in z.files]}


def read_npy(path, entry):
    if entry["expect"] != "requires-pickle":
        return {"reader": f"numpy {np.__version__}", "tensors": [row("", np.load(path, allow_pickle=False))]}
    obj = np.load(path, allow_pickle=True, encoding="latin1").item()
    rows, paths = [], {}
    for p, leaf in flatten(obj, lambda x: isinstance(x, np.ndarray)):
        name = ".".join(str(k) for k in p)
        rows.append(row(name, leaf))
        paths[name] = [plain_key(k) for k in p]
    return {"reader": f'numpy {np.__version__} np.load(allow_pickle=True, encoding="latin1")', "tensors": rows, "paths": paths}


def onnx_dtype(t):
    import onnx
    return onnx.TensorProto.DataType.Name(t.data_type).lower().replace("float", "float32") \
        if t.data_type == onnx.TensorProto.FLOAT else onnx.TensorProto.DataType.Name(t.data_type).lower().replace("double", "float64")


def read_onnx(path, entry):
    import onnx
    from onnx import numpy_helper
    model = onnx.load(path)
    one = lambda t, name=None: row(name if name is not None else t.name, numpy_helper.to_array(t), onnx_dtype(t))
    constants, subgraphs = [], []

    def walk(graph, where):
        for node in graph.node:
            for a in node.attribute:
                if a.type == onnx.AttributeProto.TENSOR and node.op_type == "Constant":
                    (constants if not where else subgraphs).append(([where] if where else []) + one(a.t, node.output[0]))
                for g in ([a.g] if a.type == onnx.AttributeProto.GRAPH else a.graphs):
                    here = (where + "/" if where else "") + (node.name or node.output[0]) + "." + a.name
                    for t in g.initializer:
                        subgraphs.append([here] + one(t))
                    walk(g, here)
    walk(model.graph, "")
    return {"reader": f"onnx {onnx.__version__} numpy_helper.to_array over graph.initializer",
            "opset": {o.domain: o.version for o in model.opset_import},
            "tensors": [one(t) for t in model.graph.initializer],
            "constants": constants, "subgraphs": subgraphs}


def read_tfjs(path, entry):
    script = """
const fs=require('fs'),path=require('path'),crypto=require('crypto');
const tf=require('@tensorflow/tfjs-core');require('@tensorflow/tfjs-backend-cpu');
const file=process.argv[2], m=JSON.parse(fs.readFileSync(file));
const specs=[], bufs=[];
for(const g of m.weightsManifest){specs.push(...g.weights);for(const p of g.paths)bufs.push(fs.readFileSync(path.join(path.dirname(file),p)));}
const all=Buffer.concat(bufs);
const w=tf.io.decodeWeights(all.buffer.slice(all.byteOffset,all.byteOffset+all.length),specs);
const out=specs.map(s=>{const v=w[s.name].dataSync();
 if(s.dtype==='string')return [s.name,'string',s.shape,null];
 return [s.name,s.dtype,s.shape,crypto.createHash('sha256').update(Buffer.from(v.buffer,v.byteOffset,v.byteLength)).digest('hex'),s.quantization?s.quantization.dtype:null];});
console.log(JSON.stringify({version:tf.version_core,rows:out}));
"""
    modules = os.environ.get("TFJS_NODE_MODULES")
    if not modules:
        raise RuntimeError("set TFJS_NODE_MODULES")
    done = subprocess.run(["node", "-e", "process.argv.splice(1,0,'x');" + script, path], text=True, capture_output=True,
                          env={**os.environ, "NODE_PATH": modules}, check=True)
    got = json.loads(done.stdout.strip().splitlines()[-1])
    return {"reader": f"@tensorflow/tfjs-core {got['version']} io.decodeWeights",
            "quantized_as": {r[0]: r[4] for r in got["rows"] if len(r) > 4 and r[4]},
            "tensors": [r[:4] for r in got["rows"]]}


READERS = {"torch-zip": read_torch, "torch-legacy": read_torch, "torchscript": read_torchscript,
           "safetensors": read_safetensors, "tf-bundle": read_tf, "keras-h5": read_h5, "keras-weights-h5": read_h5,
           "keras-v3": read_keras_v3, "npz": read_npz, "npy": read_npy, "onnx": read_onnx, "tfjs": read_tfjs}


def load_path(cache, e):
    """Where a fetched entry lies."""
    folder = os.path.join(cache, e["package"].replace("/", "__") + "-" + e["version"])
    return os.path.join(folder, e["load"]) + (".d/" + e["member"] if "member" in e else "")


def dump(obj, path):
    """JSON with one tensor a line, so that a diff can be read."""
    rows = obj["tensors"] + obj.get("constants", []) + [[where + "/" + name, *rest] for where, name, *rest in obj.get("subgraphs", [])]
    with open(path, "w", encoding="utf-8") as f:
        f.write('{"reader": ' + json.dumps(obj["reader"]) + ', "tensors": [\n' + ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in rows) + "\n]}\n")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("cache")
    ap.add_argument("out")
    ap.add_argument("--only", default="")
    ap.add_argument("--formats", default="")
    a = ap.parse_args()
    only, formats = set(filter(None, a.only.split(","))), set(filter(None, a.formats.split(",")))
    os.makedirs(a.out, exist_ok=True)
    for e in json.load(open(os.path.join(HERE, "files.json"), encoding="utf-8")):
        if (only and e["id"] not in only) or (formats and e["format"] not in formats) or e["expect"] == "requires-pickle":
            continue
        dump(READERS[e["format"]](load_path(a.cache, e), e), os.path.join(a.out, e["id"].replace("/", "__") + ".json"))


if __name__ == "__main__":
    main()
