"""Settings of the whole suite: failures must be reproducible, and nothing depends on how fast the machine is."""

from hypothesis import settings

settings.register_profile("shadowsim", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("shadowsim")
