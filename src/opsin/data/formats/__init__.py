"""One file a format: each opens what is on disk as a `Source`."""
