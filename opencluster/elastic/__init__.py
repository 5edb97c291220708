"""Who looks after elastic types: looks at the work, and has workers come and go.

Owns the daemon ``opencluster elastic run``. What is decided stands in
`opencluster.core.elasticity`; who starts workers are workshops and launchers.
"""
