"""Formats of data, one a file: each has a `FORMAT`, and the rooms list those of their task."""
