"""server/logbook.py behind a server: whose requests an experiment's frames hold."""

from serving import SHADOW_ACTIONS, serving


def test_an_experiment_that_is_created_again_begins_a_new_logbook(tmp_path):
    """Also when nobody has looked at the endpoint between the end of the first and the start of the second."""
    with serving(tmp_path, store={"transition_s": 0.0}) as server:
        sagemaker = server.experiment()
        for _ in range(3):
            server.invoke(Body=b"x")
        server.answered(3)
        request = sagemaker.describe_inference_experiment(Name="test")
        sagemaker.stop_inference_experiment(Name="test", ModelVariantActions=SHADOW_ACTIONS)
        sagemaker.delete_inference_experiment(Name="test")
        sagemaker.create_inference_experiment(
            Name="test",
            EndpointName="endpoint",
            ModelVariants=[{k: v for k, v in one.items() if k != "Status"} for one in request["ModelVariants"]],
            **{key: request[key] for key in ("Type", "RoleArn", "ShadowModeConfig")},
        )
        server.invoke(Body=b"x")
        server.answered(4)
        assert [row["request"] for row in server.frame("test", "requests")] == [0, 0]
