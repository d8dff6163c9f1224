"""Observers: what calibration remembers of a tensor, in bounded memory, and the range they choose from it.

``observer.py`` says what an observer does; ``choice.py`` which one serves which tensor.
"""
