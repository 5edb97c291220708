"""How the daemons of a cluster get onto computers: here, by ssh, in batch jobs."""
