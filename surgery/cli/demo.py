"""`surgery demo`: the whole tool on a bundle small enough to read, with the commands shown as a user would type them."""

from __future__ import annotations

import os
import shlex
import tempfile
from contextlib import chdir, nullcontext

from surgery.files import make_folder, unlink, write_file

MAKE = """\
surgery: 1
description: A small pretrained model, made here; usually a training run has written it.
steps:
  - init_missing:
      variables:
        bert/embeddings/word_embeddings: {shape: [30, 8]}
        bert/encoder/layer_0/attention/kernel: {shape: [8, 8]}
        bert/encoder/layer_0/attention/bias: {shape: [8], init: zeros}
        bert/encoder/layer_1/attention/kernel: {shape: [8, 8]}
        bert/encoder/layer_1/attention/bias: {shape: [8], init: zeros}
        global_step: {shape: [], dtype: int64, init: {constant: 1000}}
      init: {normal: {std: 0.02}}
      seed: 7
  - save: {path: pretrained/model.ckpt, format: tf}
"""

RECIPE = """\
surgery: 1
description: The encoder, named as the new model names it, with a new classifier.
steps:
  - load: {path: pretrained/model.ckpt}
  - drop: {keys: global_step}
  - scope: {strip: bert/}
  - transpose: {match: '/kernel$', order: [1, 0]}
  - rename:
      - {match: 'layer_(\\d+)', to: 'layer/\\1'}
      - {match: '/kernel$', to: /weight}
      - {match: /, to: ., all: true}
  - init_missing:
      variables: {classifier.weight: {shape: [2, 8]}, classifier.bias: {shape: [2], init: zeros}}
      init: {normal: {std: 0.02}}
  - save: {path: fitted/model.safetensors, metadata: {format: pt}}
"""

BROKEN = """\
surgery: 1
steps:
  - load: {path: pretrained/model.ckpt}
  - expect:
      variables: {bert/pooler/dense/kernel: {shape: [8, 8]}}
      unexpected: allow
  - save: {path: never/model.safetensors}
"""


def run_demo(folder: str | None) -> None:
    """Run the demo in `folder`, which is made if it is missing, or in a temporary one."""
    if folder is not None:
        make_folder(folder)
    with nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory() as place, chdir(place):
        for name, text in (("make.yaml", MAKE), ("fit.yaml", RECIPE), ("broken.yaml", BROKEN)):
            unlink(name)
            write_file(name, text.encode())
        _say("A pretrained TensorFlow checkpoint (made here by a recipe, without TensorFlow):")
        _command("surgery", "run", "--force", "make.yaml")
        _command("surgery", "inspect", "pretrained/model.ckpt")
        _say("A recipe that makes it fit a new model:")
        print(RECIPE)
        _command("surgery", "plan", "--force", "fit.yaml")
        _command("surgery", "run", "--force", "fit.yaml")
        _command("surgery", "inspect", "--tree", "fitted/model.safetensors")
        _command("surgery", "explain", "fit.yaml", "encoder.layer.0.attention.weight")
        _say("And what a key that is not there looks like. Nothing is written:")
        _command("surgery", "run", "broken.yaml")
        if folder is not None:
            _say(f"The files are in {os.path.abspath('.')}.")


def _say(text: str) -> None:
    print(f"# {text}", flush=True)


def _command(*words: str) -> None:
    from surgery.cli.frame import guarded

    print(f"$ {shlex.join(words)}", flush=True)
    code = guarded(list(words[1:]))
    print(f"(exit code {code})\n" if code else "", flush=True)
