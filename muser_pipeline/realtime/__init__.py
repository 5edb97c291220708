"""MUSER as it happens: frames come in over the network, and images go out."""
