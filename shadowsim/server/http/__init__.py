"""Guards the port: checks hosts, tokens and signatures, and bounds what callers may send.

access            limits the addresses, names, body sizes and times of callers, and checks the token of pages
bearer_tokens     verifies bearer tokens of OpenAI's clients
browser_sessions  admits browsers to the page by a link that works once
event_stream      encodes messages of AWS's event stream
signatures        verifies AWS Signature Version 4
streamed_replies  streams answers to callers, no further ahead than they read
tls               reads the certificate and the key with which the port is encrypted
"""
