"""Guards the port: checks hosts, tokens and signatures, and bounds what callers may send.

access      limits the addresses, names, body sizes and times of callers, and checks the token of pages
signatures  verifies AWS Signature Version 4
tls         reads the certificate and the key with which the port is encrypted
"""
