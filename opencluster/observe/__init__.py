"""What is seen of a cluster from outside: its status, and metrics."""
