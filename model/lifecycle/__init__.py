"""A category's life: its images, training, calibration, evaluation and report."""
