"""What people write with TensorFlow: `with_tensorflow.py OPERATION`, in a folder beside `models`."""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

BERT = "../models/bert/model.ckpt"


def rename():
    """`tf.train.Saver` under the old names, another one under the new names."""
    tf.compat.v1.disable_eager_execution()
    variables = {
        key: tf.compat.v1.get_variable(key.replace("bert/", "encoder/", 1), shape, dtype=tf.float32) for key, shape in tf.train.list_variables(BERT)
    }
    renamed = {variable.op.name: variable for variable in variables.values()}
    with tf.compat.v1.Session() as session:
        tf.compat.v1.train.Saver(variables).restore(session, BERT)
        tf.compat.v1.train.Saver(renamed).save(session, "./out.ckpt", write_meta_graph=False)


def to_safetensors():
    """TensorFlow's reader and the safetensors library."""
    from safetensors.numpy import save_file

    reader = tf.train.load_checkpoint(BERT)
    save_file({key.replace("/", "."): reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}, "out.safetensors")


globals()[sys.argv[1]]()
