"""The command line: where everything is put together. Nothing imports it."""
