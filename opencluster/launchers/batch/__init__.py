"""Clusters in jobs of a batch system; what is Slurm's or PBS's alone is beside this."""
