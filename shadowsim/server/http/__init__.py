"""Guards the port: who may call, and how much they may send."""
