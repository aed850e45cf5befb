"""Detection: networks that say what is where, their training and their evaluation."""

from opsin.lazy_modules import lazy_modules

__getattr__, __dir__ = lazy_modules(__name__, __file__)
