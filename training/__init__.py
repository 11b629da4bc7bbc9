"""Shards to versions: the only package that imports TensorFlow, Keras and MLflow."""
