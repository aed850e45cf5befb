"""Sequences: texts and numbers translated, continued, labelled, classified and measured."""

from opsin.lazy_modules import lazy_modules

__getattr__, __dir__ = lazy_modules(__name__, __file__)
