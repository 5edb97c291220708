"""What OpenCluster costs on this machine, measured: ``python -m bench --help``.

It asserts nothing and is no part of the tests: figures depend on the machine, so each
one is shown with its spread and beside the machine that it comes from.
"""
