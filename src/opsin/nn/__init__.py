"""Layers that networks are built from, and what a network costs."""

from opsin.lazy_modules import lazy_modules

__getattr__, __dir__ = lazy_modules(__name__, __file__)
