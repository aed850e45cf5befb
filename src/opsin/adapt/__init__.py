"""Transfer between domains: classifiers that learn from labelled images of some and are used on those of another."""

from opsin.lazy_modules import lazy_modules

__getattr__, __dir__ = lazy_modules(__name__, __file__)
