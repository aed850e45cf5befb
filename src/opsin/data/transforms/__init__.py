"""Random changes of training samples."""
