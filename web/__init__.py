"""The web pages of a cluster, imported as ``opencluster_web``.

Not filled yet. This package will hold a Flask application that shows factories,
workshops, workers and jobs; it may import `opencluster`, which never imports it.
"""
