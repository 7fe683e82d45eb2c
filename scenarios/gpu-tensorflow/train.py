"""Data-parallel training with Horovod and TensorFlow, a GPU for each rank."""

import horovod.tensorflow as hvd
import tensorflow as tf

hvd.init()
gpus = tf.config.list_physical_devices("GPU")

tf.random.set_seed(1)
model = tf.keras.Sequential([tf.keras.layers.Dense(10, input_shape=(64,))])
optimizer = tf.keras.optimizers.SGD(0.1)
loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
hvd.broadcast_variables(model.variables, root_rank=0)
tf.random.set_seed(hvd.rank())
inputs = tf.random.normal((256, 64))
labels = tf.random.uniform((256,), maxval=10, dtype=tf.int32)
for step in range(5):
    with hvd.DistributedGradientTape(tf.GradientTape()) as tape:
        loss = loss_of(labels, model(inputs, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    print(f"rank {hvd.rank()}: step {step}: loss {loss.numpy():.4f}", flush=True)
