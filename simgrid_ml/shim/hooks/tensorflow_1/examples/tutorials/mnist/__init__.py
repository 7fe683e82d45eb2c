"""What is left of TensorFlow 1's tutorials: how they read MNIST."""

from tensorflow.examples.tutorials.mnist import input_data as input_data
