"""Bearer tokens of OpenAI's clients, made by botocore as SageMaker's SDK makes them."""

import base64

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from serving import KEYS

KEY, SECRET = KEYS.values()


def token(key=KEY, secret=SECRET, expires=900, action="CallWithBearerToken", change=lambda url: url):
    url = "https://sagemaker.amazonaws.com/"
    request = AWSRequest("POST", url, {"host": "sagemaker.amazonaws.com"}, params={"Action": action})
    SigV4QueryAuth(Credentials(key, secret), "sagemaker", "eu-west-1", expires=expires).add_auth(request)
    signed = change(request.url.removeprefix("https://")) + "&Version=1"
    return "Bearer sagemaker-api-key-" + base64.b64encode(signed.encode()).decode()
