"""The gRPC edge: the only place of the kernel where gRPC and generated messages appear."""
