"""Networks and trainings, explained: what they cost, how far they see, what they need, and what is wrong with them."""

from opsin.lazy_modules import lazy_modules

__getattr__, __dir__ = lazy_modules(__name__, __file__)
