"""What the figure of the layers shows is what the score is made of."""

import numpy as np
import pytest

from model.choices import Score
from model.lab.features import layers_of
from model.networks.vgg import DISTILLATION_POOLS
from model.preprocessing import Preprocessing
from model.store.store import Store
from tests.conftest import Factory, surface, terms_of


@pytest.mark.parametrize("score", Score)
def test_the_layers_add_up_to_the_score_and_their_differences_to_its_squared_term(factory: Factory, score: Score):
    _, detector = Store(factory.weights, factory.teachers).load("striped")
    detector.score = score
    (pixels,) = Preprocessing(64).apply(surface(800, fault=True))
    layers = layers_of(detector, pixels)
    assert [layer.name for layer in layers] == [f"pool {pool}" for pool in DISTILLATION_POOLS]
    assert [layer.difference.shape for layer in layers] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    found = detector(pixels[None])
    squared = [np.square(layer.difference).mean() for layer in layers]
    assert squared == pytest.approx(terms_of(detector, pixels[None])[0, :, 0].tolist(), rel=1e-4)
    adds = [float(layer.note.split()[1]) for layer in layers]
    assert sum(adds) == pytest.approx(float(found.scores[0]), rel=0.01)
