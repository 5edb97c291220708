"""What is seen of a cluster from outside: metrics so far."""
