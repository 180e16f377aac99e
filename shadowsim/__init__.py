"""shadowsim."""
