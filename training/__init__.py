"""Shards -> versions: the only place that imports TensorFlow, Keras and MLflow."""
