"""The data processing of MUSER, the solar radio heliograph, on OpenCluster.

Not filled yet. This package will hold the pipeline from raw frames to images as
managers and workers; it may import only the public names of `opencluster`, and its
subpackage ``imaging`` will know neither MUSER nor OpenCluster.
"""
