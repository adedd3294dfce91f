"""The body of a process that decodes videos: ``python -m clipfeed._worker``."""

from ._native import decode

decode()
