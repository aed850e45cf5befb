"""Landmarks: where the named points of an object lie in an image, such as the corners of eyes."""

from opsin.lazy_modules import lazy_modules

__getattr__, __dir__ = lazy_modules(__name__, __file__)
