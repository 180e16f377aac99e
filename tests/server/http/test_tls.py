"""TLS: boto3 that verifies the certificate, other certificates on reading again, and files that cannot be used."""

import datetime as dt
import ipaddress
import ssl
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from serving import serving

from shadowsim import InputError
from shadowsim.server.http.tls import Certificate


def pair(folder, name):
    """Write a certificate of 127.0.0.1 that is its own authority, and its key; return both files."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = builder.add_extension(address, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    files = folder / f"{name}.crt", folder / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def trusts(url, file):
    try:
        with urlopen(f"{url}/ping", timeout=10, context=ssl.create_default_context(cafile=file)) as answer:
            return answer.status == 200
    except URLError as error:
        assert isinstance(error.reason, ssl.SSLCertVerificationError)  # noqa: PT017
        return False


def test_boto3_verifies_the_certificate_and_a_new_one_after_reading_again(tmp_path):
    files, others = pair(tmp_path, "one"), pair(tmp_path, "two")
    certificate = Certificate(*files)
    with serving(tmp_path, certificate=certificate) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert server.client("sagemaker", verify=str(files[0])).list_models()["Models"] == []
        assert trusts(server.url, files[0])
        assert not trusts(server.url, others[0])
        first = files[0].read_bytes()
        (tmp_path / "first.crt").write_bytes(first)
        for file, other in zip(files, others, strict=True):
            file.write_bytes(other.read_bytes())
        certificate.read_again()
        assert trusts(server.url, others[0])
        assert not trusts(server.url, tmp_path / "first.crt")
        files[0].write_bytes(first)  # with the other one's key
        with pytest.raises(InputError, match="--tls-key: must be the key of"):
            certificate.read_again()
        assert trusts(server.url, others[0])  # as before


def encrypted(tmp_path):
    key, secret = ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"secret")
    (tmp_path / "secret.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    return tmp_path / "secret.key"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (lambda p: (p / "none.crt", pair(p, "a")[1]), "--tls-cert: .*none.crt cannot be read: No such file"),
        (lambda p: (pair(p, "a")[0], p / "none.key"), "--tls-key: .*none.key cannot be read: No such file"),
        (lambda p: (pair(p, "a")[0], pair(p, "b")[1]), "--tls-key: must be the key of .*a.crt, and .*b.key is not"),
        (lambda p: (pair(p, "a")[1], pair(p, "a")[1]), "--tls-cert: must be a certificate, and .*a.key its key"),
        (lambda p: (p / "notes.txt", pair(p, "a")[1]), "--tls-cert: must be a PEM file, and .*notes.txt is none"),
        (lambda p: (pair(p, "a")[0], encrypted(p)), "--tls-key: must be a key without a pass phrase"),
    ],
)
def test_a_wrong_pair_is_one_clear_line(tmp_path, files, message):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InputError, match=message) as caught:
        Certificate(*files(tmp_path))
    assert "\n" not in str(caught.value)
