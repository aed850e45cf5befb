"""The version of opsin, which files say that it writes."""

__version__ = "0.1.0"
