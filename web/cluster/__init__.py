"""The cluster: how it is in words and one colour, its computers and its workers.

What is shown comes from a factory, and is asked for when somebody looks.
"""
