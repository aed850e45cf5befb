"""Classification: one class of many, or any number of classes at once."""

from opsin.lazy_modules import lazy_modules

__getattr__, __dir__ = lazy_modules(__name__, __file__)
