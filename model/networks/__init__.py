"""The networks: Efficient Channel Attention, teacher and student."""
