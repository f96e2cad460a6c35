"""A load over HTTP, against any OpenAI-compatible server, from processes of its own."""
