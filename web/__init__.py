"""The web pages of a cluster, imported as ``opencluster_web``.

A Flask application: `opencluster_web.application.create_app` makes it, and
``opencluster web`` serves it. It may import `opencluster`, which never imports it.
Pages are rendered here and complete without JavaScript; what changes comes after as
server-sent events. Every file that a page needs is served by this application, so that
pages work without Internet. Importing this package loads nothing.
"""
