"""Where pieces run: in this process, in processes of this computer, on a cluster.

A manager knows an engine by its name and by the protocol in ``base.py``. A module
``opencluster.engines.NAME`` offers ``connect(config, place)``, which returns it.
"""
