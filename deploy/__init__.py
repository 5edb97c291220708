"""What puts OpenCluster onto the computers of a site: ``opencluster_deploy``.

``opencluster deploy install`` writes the configuration, the keys and the systemd units
of a computer from what lies here.
"""
