"""What ``opencluster demo`` runs: a first Worker and Manager, as any user writes them.

Knows the public names of OpenCluster only.
"""
