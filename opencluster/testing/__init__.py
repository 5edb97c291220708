"""For tests of your own programs: a real cluster that lasts as long as a block."""

from opencluster.testing.local_cluster import LocalCluster

__all__ = ["LocalCluster"]
