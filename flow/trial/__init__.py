"""Trying a pipeline out: on messages that are given back, on copies, and on files."""
