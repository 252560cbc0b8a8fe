"""Images are decoded in processes that can be ended: a file that takes too long or too much memory costs no other."""
