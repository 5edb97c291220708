"""Jobs: every run of a manager, and what became of its pieces.

Those that run come from the status, those that ended from the history, and their
timelines from the records that managers write.
"""
