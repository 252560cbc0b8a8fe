"""The paper's experiments: its data sets, its ablations, its tables.

Nothing here is needed to train or serve a category.
"""
