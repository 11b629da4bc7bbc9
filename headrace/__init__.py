"""The words everyone shares: errors, clock, schema, window, shard, version, delta, store, log, config; and the CLI."""

__all__ = ["__version__"]

__version__ = "0.1.0"
