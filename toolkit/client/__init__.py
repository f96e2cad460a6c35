"""Send a load to any OpenAI-compatible server, from processes that load nothing else.

A request is sent when it is due, and what comes back is stamped when it comes. Standard library
alone: a client process starts at once and is small.
"""
