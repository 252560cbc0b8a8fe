"""The names that the command line shows are those that the experiments carry out."""

from model.lab import choices
from model.lab.reproduction.sets import SETS
from model.lab.variants import VARIANTS


def test_every_name_shown_is_carried_out_and_the_other_way_round():
    assert tuple(SETS) == choices.DATASETS
    assert tuple(VARIANTS) == choices.VARIANTS
