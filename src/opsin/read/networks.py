"""Every recognizer: importing this registers them by name."""

__all__: list[str] = []
