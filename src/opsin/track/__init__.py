"""Tracking: which objects of a video are the same, from frame to frame."""

from opsin.lazy_modules import lazy_modules

__getattr__, __dir__ = lazy_modules(__name__, __file__)
