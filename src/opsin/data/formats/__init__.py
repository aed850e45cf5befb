"""Formats of data, one a file: each has a `FORMAT`, and each task lists its own."""
