"""Versions to predictions over gRPC, without TensorFlow."""
