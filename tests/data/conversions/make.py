"""Runs the converters of transformers 4.44.2 and timm 1.0.31 on tiny models with random weights: `python make.py FOLDER [JOB…]`."""

import hashlib
import json
import os
import sys
import tempfile
import types

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import torch

HERE = sys.argv[1]
LIBS = []  # operators of torchvision that torch lacks here; they live as long as this list
count = 0


def normal(*shape):
    global count
    count += 1
    return (np.random.default_rng(count).standard_normal(shape) * 0.3).astype(np.float32)


def folder(name):
    path = os.path.join(HERE, name, "source")
    os.makedirs(path, exist_ok=True)
    return path


def listing(name, tensors, made_by):
    rows = []
    for key, t in tensors.items():
        if torch.is_tensor(t):
            t = t.detach().contiguous()
            data = t.reshape(-1).view(torch.uint8).numpy().tobytes()
            dtype = str(t.dtype).replace("torch.", "")
        else:
            data, dtype = np.ascontiguousarray(t).tobytes(), t.dtype.name
        rows.append([key, dtype, list(t.shape), hashlib.sha256(data).hexdigest()])
    with open(os.path.join(HERE, name, "expected.json"), "w") as f:
        f.write(json.dumps({"made_by": made_by})[:-1] + ',\n "tensors": [\n' + ",\n".join("  " + json.dumps(r) for r in rows) + "\n ]\n}\n")


def tf_bundle(path, arrays):
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as s:
        vs = [tf1.get_variable(n, initializer=a, use_resource=False) for n, a in sorted(arrays.items())]
        s.run(tf1.global_variables_initializer())
        tf1.train.Saver(vs).save(s, path, write_meta_graph=False, write_state=False)


def bert():
    from transformers import BertConfig, BertForPreTraining
    from transformers.models.bert.modeling_bert import load_tf_weights_in_bert

    D, F, V, L = 4, 6, 7, 12
    z = {
        "bert/embeddings/word_embeddings": normal(V, D),
        "bert/embeddings/position_embeddings": normal(5, D),
        "bert/embeddings/token_type_embeddings": normal(2, D),
    }

    def norm(at):
        z.update({at + "/gamma": normal(D), at + "/beta": normal(D)})

    def dense(at, i, o):
        z.update({at + "/kernel": normal(i, o), at + "/bias": normal(o)})

    norm("bert/embeddings/LayerNorm")
    for i in range(L):
        b = f"bert/encoder/layer_{i}/"
        for p in ("query", "key", "value"):
            dense(b + "attention/self/" + p, D, D)
        dense(b + "attention/output/dense", D, D)
        norm(b + "attention/output/LayerNorm")
        dense(b + "intermediate/dense", D, F)
        dense(b + "output/dense", F, D)
        norm(b + "output/LayerNorm")
    dense("bert/pooler/dense", D, D)
    dense("cls/predictions/transform/dense", D, D)
    norm("cls/predictions/transform/LayerNorm")
    z["cls/predictions/output_bias"] = normal(V)
    z["cls/seq_relationship/output_weights"] = normal(2, D)
    z["cls/seq_relationship/output_bias"] = normal(2)
    extra = {"global_step": np.int64(7), "bert/pooler/dense/kernel/adam_m": normal(D, D), "bert/pooler/dense/kernel/adam_v": normal(D, D)}
    path = os.path.join(folder("bert_pretraining_tf_to_hf"), "model.ckpt")
    tf_bundle(path, {**z, **extra})
    cfg = BertConfig(vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=2, intermediate_size=F, max_position_embeddings=5)
    m = BertForPreTraining(cfg)
    load_tf_weights_in_bert(m, cfg, path)
    sd = m.state_dict()
    listing(
        "bert_pretraining_tf_to_hf",
        {k: v for k, v in sd.items() if k != "cls.predictions.decoder.bias"},
        "transformers 4.44.2 load_tf_weights_in_bert",
    )


def llama(name, shards, version, D=8, L=11, NH=4, KV=2, V=6, FF=12):
    from transformers.models.llama import convert_llama_weights_to_hf as theirs

    src = folder(name)
    hd = D // NH
    t = lambda *s: torch.from_numpy(normal(*s)).bfloat16()
    full = {"tok_embeddings.weight": t(V, D), "norm.weight": t(D), "output.weight": t(V, D), "rope.freqs": t(hd // 2 or 1)}
    for i in range(L):
        b = f"layers.{i}."
        full.update(
            {
                b + "attention.wq.weight": t(NH * hd, D),
                b + "attention.wk.weight": t(KV * hd, D),
                b + "attention.wv.weight": t(KV * hd, D),
                b + "attention.wo.weight": t(D, NH * hd),
                b + "feed_forward.w1.weight": t(FF, D),
                b + "feed_forward.w2.weight": t(D, FF),
                b + "feed_forward.w3.weight": t(FF, D),
                b + "attention_norm.weight": t(D),
                b + "ffn_norm.weight": t(D),
            }
        )

    def axis(k):
        if "norm" in k or "rope" in k:
            return None
        if ".wo." in k or ".w2." in k:
            return 1
        if "tok_" in k:
            return 0 if version == "3" else 1
        return 0

    for r in range(shards):
        torch.save(
            {k: (v if axis(k) is None else v.chunk(shards, axis(k))[r].clone()) for k, v in full.items()},
            os.path.join(src, f"consolidated.{r:02d}.pth"),
        )
    json.dump(
        {
            "dim": D,
            "n_layers": L,
            "n_heads": NH,
            "n_kv_heads": KV,
            "vocab_size": V,
            "multiple_of": 16,
            "norm_eps": 1e-5,
            **({"rope_theta": 500000.0} if version == "3" else {}),
        },
        open(os.path.join(src, "params.json"), "w"),
    )
    with tempfile.TemporaryDirectory() as tmp:
        theirs.compute_intermediate_size = lambda *a, **k: FF
        theirs.write_model(
            model_path=tmp, input_base_path=src, model_size="x", safe_serialization=True, llama_version=version, vocab_size=V, num_shards=shards
        )
        from safetensors.torch import load_file

        want = load_file(os.path.join(tmp, "model.safetensors"))
    listing(name, want, "transformers 4.44.2 convert_llama_weights_to_hf")


def t5_config(V, D, H, K, F, L, LD, B, gated, tied):
    from transformers import T5Config

    return T5Config(
        vocab_size=V,
        d_model=D,
        d_kv=K,
        d_ff=F,
        num_layers=L,
        num_decoder_layers=LD,
        num_heads=H,
        relative_attention_num_buckets=B,
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=tied,
    )


def t5x(name, gated, tied, L=12, LD=2, V=7, D=6, H=2, K=4, F=5, B=3, scanned=False, wrap="target"):
    from flax import serialization, traverse_util

    stub = types.ModuleType("t5x")
    stub.checkpoints = types.ModuleType("checkpoints")
    sys.modules.setdefault("t5x", stub)
    from transformers import T5ForConditionalGeneration
    from transformers.models.t5 import convert_t5x_checkpoint_to_pytorch as plain
    from transformers.models.umt5 import convert_umt5_checkpoint_to_pytorch as scan

    z = {"token_embedder/embedding": normal(V, D), "encoder/encoder_norm/scale": normal(D), "decoder/decoder_norm/scale": normal(D)}
    if not tied:
        z["decoder/logits_dense/kernel"] = normal(D, V)
    for stack, layers in (("encoder", L), ("decoder", LD)):

        def put(key, *shape):
            if scanned:
                z[f"{stack}/{stack}/{key}"] = normal(shape[0], layers, *shape[1:])
            else:
                for i in range(layers):
                    z[f"{stack}/layers_{i}/{key}"] = normal(*shape)

        heads = (H, K) if scanned else (H * K,)
        names = {"encoder": ["attention"], "decoder": ["self_attention", "encoder_decoder_attention"]}[stack]
        for a in names:
            for p in ("query", "key", "value"):
                put(f"{a}/{p}/kernel", D, *heads)
            put(f"{a}/out/kernel", *heads, D) if not scanned else z.__setitem__(f"{stack}/{stack}/{a}/out/kernel", normal(H, layers, K, D))
        for n in {"encoder": ["pre_attention_layer_norm"], "decoder": ["pre_self_attention_layer_norm", "pre_cross_attention_layer_norm"]}[stack] + [
            "pre_mlp_layer_norm"
        ]:
            put(n + "/scale", D)
        for w in ("wi_0", "wi_1") if gated else ("wi",):
            put(f"mlp/{w}/kernel", D, F)
        put("mlp/wo/kernel", F, D)
        if scanned:
            z[f"{stack}/{stack}/relpos_bias/rel_embedding"] = normal(H, layers, B)
        else:
            z[f"{stack}/relpos_bias/rel_embedding"] = normal(H, B)
    tree = traverse_util.unflatten_dict({tuple(k.split("/")): v for k, v in z.items()})
    whole = {"target": tree, "state": {"step": np.int32(3), "param_states": {"x": normal(2)}}}
    if wrap == "optimizer":
        whole = {"version": 1, "optimizer": {"target": tree, "state": whole["state"]}}
    with open(os.path.join(folder(name), "checkpoint.msgpack"), "wb") as f:
        f.write(serialization.msgpack_serialize(whole))
    if scanned:
        sd = scan.make_state_dict(scan.convert_t5x_to_pytorch({"target": tree}, num_layers=L, is_encoder_only=False, scalable_attention=True), False)
    else:
        sd = plain.make_state_dict(plain.convert_t5x_to_pytorch({"target": tree}, num_layers=L, num_decoder_layers=LD, is_encoder_only=False), False)
        T5ForConditionalGeneration(t5_config(V, D, H, K, F, L, LD, B, gated, tied)).load_state_dict(sd, strict=True)
    drop = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"} | ({"lm_head.weight"} if tied else set())
    listing(
        name,
        {k: v for k, v in sd.items() if k not in drop},
        "transformers 4.44.2 " + ("convert_umt5_checkpoint_to_pytorch" if scanned else "convert_t5x_checkpoint_to_pytorch"),
    )


def mesh(name, gated, tied, norm="rms_norm", L=12, LD=2, V=7, D=6, H=2, K=4, F=5, B=3):
    from transformers import T5ForConditionalGeneration
    from transformers.models.t5.modeling_t5 import load_tf_weights_in_t5

    z = {"shared/embedding": normal(V, D)}
    if not tied:
        z["decoder/logits/kernel"] = normal(D, V)
    for stack, layers in (("encoder", L), ("decoder", LD)):
        z[f"{stack}/{norm if norm == 'rms_norm' else 'final_layer_norm'}/scale"] = normal(D)
        for i in range(layers):
            parts = ["SelfAttention"] + (["EncDecAttention"] if stack == "decoder" else [])
            for j, a in enumerate(parts):
                b = f"{stack}/block_{i:03d}/layer_{j:03d}/"
                for p in "qkv":
                    z[b + a + "/" + p] = normal(D, H * K)
                z[b + a + "/o"] = normal(H * K, D)
                z[b + norm + "/scale"] = normal(D)
                if i == j == 0:
                    z[b + a + "/relative_attention_bias"] = normal(H, B)
            b = f"{stack}/block_{i:03d}/layer_{len(parts):03d}/"
            for w in ("wi_0", "wi_1") if gated else ("wi",):
                z[b + f"DenseReluDense/{w}/kernel"] = normal(D, F)
            z[b + "DenseReluDense/wo/kernel"] = normal(F, D)
            z[b + norm + "/scale"] = normal(D)
    slots = {
        "shared/embedding_slot_vr": normal(V),
        "shared/embedding_slot_vc": normal(D),
        "encoder/block_000/layer_000/SelfAttention/q_slot_vc": normal(D),
        "global_step": np.int64(5),
    }
    path = os.path.join(folder(name), "model.ckpt-5")
    tf_bundle(path, {**z, **slots})
    cfg = t5_config(V, D, H, K, F, L, LD, B, gated, tied)
    m = T5ForConditionalGeneration(cfg)
    load_tf_weights_in_t5(m, cfg, path)
    drop = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"} | ({"lm_head.weight"} if tied else set())
    listing(name, {k: v for k, v in m.state_dict().items() if k not in drop}, "transformers 4.44.2 load_tf_weights_in_t5")


def vit():
    for op in ("nms", "qnms"):
        lib = torch.library.Library("torchvision", "DEF" if op == "nms" else "FRAGMENT")
        lib.define(op + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        LIBS.append(lib)
    from timm.models.vision_transformer import VisionTransformer, _load_weights
    from transformers import ViTConfig
    from transformers.models.vit import convert_vit_timm_to_pytorch as theirs

    D, L, NH, C, PS, IMG, FF = 8, 11, 2, 3, 2, 4, 6
    hd, n = D // NH, (IMG // PS) ** 2

    def arrays(mha, mlp, ln2, pos):
        z = {
            "embedding/kernel": normal(PS, PS, 3, D),
            "embedding/bias": normal(D),
            "cls": normal(1, 1, D),
            pos: normal(1, n + 1, D),
            "Transformer/encoder_norm/scale": normal(D),
            "Transformer/encoder_norm/bias": normal(D),
            "head/kernel": normal(D, C),
            "head/bias": normal(C),
        }
        for i in range(L):
            b = f"Transformer/encoderblock_{i}/"
            m = b + f"MultiHeadDotProductAttention_{mha}/"
            z.update(
                {
                    b + "LayerNorm_0/scale": normal(D),
                    b + "LayerNorm_0/bias": normal(D),
                    b + f"LayerNorm_{ln2}/scale": normal(D),
                    b + f"LayerNorm_{ln2}/bias": normal(D),
                    m + "out/kernel": normal(NH, hd, D),
                    m + "out/bias": normal(D),
                    b + f"MlpBlock_{mlp}/Dense_0/kernel": normal(D, FF),
                    b + f"MlpBlock_{mlp}/Dense_0/bias": normal(FF),
                    b + f"MlpBlock_{mlp}/Dense_1/kernel": normal(FF, D),
                    b + f"MlpBlock_{mlp}/Dense_1/bias": normal(D),
                }
            )
            for q in ("query", "key", "value"):
                z[m + q + "/kernel"], z[m + q + "/bias"] = normal(D, NH, hd), normal(NH, hd)
        return z

    def timm_of(path):
        model = VisionTransformer(img_size=IMG, patch_size=PS, num_classes=C, embed_dim=D, depth=L, num_heads=NH, mlp_ratio=FF / D)
        _load_weights(model, path)
        return dict(model.state_dict())

    path = os.path.join(folder("vit_jax_npz_to_hf"), "vit.npz")
    np.savez(
        path,
        **{"opt/target/" + k: v for k, v in arrays(1, 3, 2, "Transformer/posembed_input/pos_embedding").items()},
        **{"opt/state/step": np.int32(1)},
    )
    sd = timm_of(path)
    cfg = ViTConfig(hidden_size=D, num_hidden_layers=L, num_attention_heads=NH, intermediate_size=FF)
    for old, new in theirs.create_rename_keys(cfg):
        theirs.rename_key(sd, old, new)
    theirs.read_in_q_k_v(sd, cfg)
    from transformers import ViTForImageClassification

    hf = ViTForImageClassification(
        ViTConfig(hidden_size=D, num_hidden_layers=L, num_attention_heads=NH, intermediate_size=FF, image_size=IMG, patch_size=PS, num_labels=C)
    )
    hf.load_state_dict(sd, strict=True)
    listing("vit_jax_npz_to_hf", sd, "timm 1.0.31 _load_weights, transformers 4.44.2 convert_vit_timm_to_pytorch")
    z = arrays(0, 0, 1, "pos_embedding")
    scanned = {k: v for k, v in z.items() if "encoderblock_" not in k}
    for k in z:
        if "encoderblock_0/" in k:
            scanned[k.replace("encoderblock_0", "encoderblock")] = np.stack([z[k.replace("encoderblock_0", f"encoderblock_{i}")] for i in range(L)])
    path = os.path.join(folder("vit_big_vision_scanned_to_timm"), "vit.npz")
    np.savez(path, **{"params/" + k: v for k, v in scanned.items()})
    listing("vit_big_vision_scanned_to_timm", timm_of(path), "timm 1.0.31 _load_weights")


def flax_models():
    import jax
    from flax.traverse_util import flatten_dict, unflatten_dict
    from transformers import (
        BertConfig,
        BertForPreTraining,
        FlaxBertForPreTraining,
        ViTConfig,
        FlaxViTForImageClassification,
        ViTForImageClassification,
    )

    for name, F, P, cfg in (
        (
            "flax_bert_to_pytorch",
            FlaxBertForPreTraining,
            BertForPreTraining,
            BertConfig(vocab_size=7, hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=6, max_position_embeddings=5),
        ),
        (
            "flax_vit_to_pytorch",
            FlaxViTForImageClassification,
            ViTForImageClassification,
            ViTConfig(hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=6, image_size=4, patch_size=2, num_labels=3),
        ),
    ):
        m = F(cfg, seed=0)
        flat = flatten_dict(m.params)
        m.params = unflatten_dict({k: jax.numpy.asarray(normal(*v.shape)) for k, v in sorted(flat.items())})
        src = folder(name)
        m.save_pretrained(src)
        p = P.from_pretrained(src, from_flax=True)
        os.remove(os.path.join(src, "config.json"))
        listing(
            name,
            {k: v for k, v in p.state_dict().items() if not k.endswith("num_batches_tracked") and not k.startswith("cls.predictions.decoder")},
            "transformers 4.44.2 from_pretrained(from_flax=True)",
        )


def megatron(name, ranks=2, H=12, NH=2, L=11, V=6, P=5):
    from argparse import Namespace

    from transformers import GPT2Config
    from transformers.models.megatron_gpt2 import convert_megatron_gpt2_checkpoint as theirs

    words, places, layers = normal(V, H), normal(P, H), {}
    for i in range(L):
        b = f"layers.{i}."
        for at, shape in (("self_attention.query_key_value", (3 * H, H)), ("self_attention.dense", (H, H)), ("mlp.dense_h_to_4h", (4, H)), ("mlp.dense_4h_to_h", (H, 4))):
            layers |= {f"{b}{at}.weight": normal(*shape), f"{b}{at}.bias": normal(shape[0])}
        layers |= {f"{b}{at}_layernorm.{part}": normal(H) for at in ("input", "post_attention") for part in ("weight", "bias")}
    layers |= {f"final_layernorm.{part}": normal(H) for part in ("weight", "bias")}

    def cut(key, value, rank):
        if "query_key_value" in key or "dense_h_to_4h" in key:
            return np.split(value, ranks, 0)[rank]
        if key.endswith("weight") and "dense" in key:
            return np.split(value, ranks, 1)[rank]
        return value

    def state(words, layers):
        t = lambda a: torch.from_numpy(a.copy())
        embedding = {"word_embeddings": {"weight": t(words)}, "position_embeddings": {"weight": t(places)}}
        return {"checkpoint_version": 3.0, "model": {"language_model": {"embedding": embedding, "encoder": {k: t(v) for k, v in layers.items()}}}}

    for rank in range(ranks):
        path = os.path.join(folder(name), f"mp_rank_{rank:02}")
        os.makedirs(path, exist_ok=True)
        part = state(np.split(words, ranks)[rank], {key: cut(key, value, rank) for key, value in layers.items()})
        torch.save({"args": Namespace(num_layers=L), "iteration": 7, **part}, os.path.join(path, "model_optim_rng.pt"))
    config = GPT2Config(vocab_size=V, n_positions=P, n_embd=H, n_layer=L, n_head=NH)
    made = theirs.convert_megatron_checkpoint(None, state(words, layers), config)
    kept = {k: v for k, v in made.items() if not k.endswith((".attn.bias", ".masked_bias"))}
    listing(name, kept, "transformers 4.44.2 convert_megatron_checkpoint, of the joined ranks")


JOBS = {
    "bert": bert,
    "llama2": lambda: llama("llama2_two_files_to_hf", 2, "2"),
    "llama3": lambda: llama("llama3_two_files_to_hf", 2, "3", L=2),
    "t5x": lambda: t5x("t5x_v1_0_to_hf", False, True),
    "t5x11": lambda: t5x("t5x_v1_1_optimizer_to_hf", True, False, L=2, wrap="optimizer"),
    "t5xscan": lambda: t5x("t5x_scanned_to_hf", True, False, L=11, LD=11, scanned=True),
    "mesh": lambda: mesh("mesh_t5_v1_0_to_hf", False, True),
    "mesh11": lambda: mesh("mesh_t5_v1_1_to_hf", True, False, "layer_norm", L=2),
    "vit": vit,
    "flax": flax_models,
    "megatron": lambda: megatron("megatron_gpt2_two_ranks_to_hf"),
}
for job in sys.argv[2:] or JOBS:
    count = 1000 * list(JOBS).index(job)
    JOBS[job]()
