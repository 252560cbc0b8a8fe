"""Reading image files, one module for each format.

Each module looks at the structure of a file first and refuses what is not read exactly. Only what the picture needs is
given to Pillow, or to OpenCV where values have 16 bits: metadata and whatever lies behind the picture cost nothing.
"""
