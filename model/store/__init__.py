"""What is on disk: cards, pairs and teachers."""
