"""MUSER's images: the latest ones, each one, movies of them, and the light curve.

What is shown comes from the index of images and from the files that it names. Nothing
is written there; there may be no index yet, and it may be in use by others.
"""
