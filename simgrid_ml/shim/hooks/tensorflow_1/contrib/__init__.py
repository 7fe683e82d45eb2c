"""``import tensorflow.contrib`` says what ``tf.contrib`` says."""

import tensorflow

try:
    tensorflow.contrib  # noqa: B018
except AttributeError as error:
    raise ImportError(str(error), name=__name__) from None
