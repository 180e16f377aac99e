"""Asks AWS for an experiment that exists there; boto3 is imported only then."""

from __future__ import annotations

from typing import Any

from shadowsim.errors import InputError, shown

_NOT_FOUND = ("ResourceNotFound", "ResourceNotFoundException")


def described_experiment(name: str, option: str = "from_aws") -> dict[str, Any]:
    """Return the answer of DescribeInferenceExperiment, for the region and the credentials that boto3 finds.

    `AWS_ENDPOINT_URL` (or `AWS_ENDPOINT_URL_SAGEMAKER`) leads to another address, such as that of `shadowsim serve`.

    Raises
    ------
    InputError
        There is no such experiment, no boto3, no region or no credentials, or AWS refuses; `option` names the option.
    """
    try:
        import boto3  # type: ignore[import-untyped]
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise InputError(option, "needs boto3: pip install 'shadowsim[aws]'") from None
    try:
        answer: dict[str, Any] = boto3.client("sagemaker").describe_inference_experiment(Name=name)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", "")
        if code in _NOT_FOUND:
            raise InputError(option, f"there is no inference experiment {shown(name)} ({shown(message)})") from None
        raise InputError(option, f"AWS refuses to describe {shown(name)}: {code}: {shown(message)}") from None
    except (BotoCoreError, ValueError) as error:  # ValueError: an address that is none
        raise InputError(option, f"cannot ask AWS for {shown(name)}: {shown(' '.join(str(error).split()))}") from None
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}
