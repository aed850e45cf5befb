"""Embedding: images as points, near for one identity and far for two; verification, retrieval, few-shot learning."""

from opsin.lazy_modules import lazy_modules

__getattr__, __dir__ = lazy_modules(__name__, __file__)
