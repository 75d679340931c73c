"""Small trained models that come with the package, each with a card of what it reaches and what it takes.

>>> import torch_nano as tn
>>> tn.zoo.names()
('watch', 'digits', 'mnist_1d')
>>> nano = tn.zoo.load("digits")
>>> nano.labels[:3], nano.head
(['0', '1', '2'], LdaHead(features=64, classes=10, capacity=12))
>>> print(tn.zoo.card("digits").title)
Handwritten digits, 8x8
"""

from .card import FOLDER, Card, card, load, names

__all__ = ["FOLDER", "Card", "card", "load", "names"]
