"""Log to shards: the only package that imports Apache Beam."""
