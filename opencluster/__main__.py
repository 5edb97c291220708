"""``python -m opencluster`` is the command ``opencluster``."""

from opencluster.cli import main

main()
