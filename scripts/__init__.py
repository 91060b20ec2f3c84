"""What the targets of the Makefile run: thin, on the public API."""
