"""What `modal run` takes on its command line."""

from harness.client import Client


def test_options_reach_the_entrypoint_with_their_types(client: Client) -> None:
    run = client.run("entrypoints.py::typed", "--number", "7", "--text", "some words", "--flag")
    assert run.results == {"number": 7, "text": "some words", "flag": True}


def test_a_name_chooses_the_entrypoint_or_the_function(client: Client) -> None:
    assert client.run("entrypoints.py::other").results == {"other": True}
    assert "repeated: abab" in client.run("entrypoints.py::repeat", "--word", "ab").output


def test_a_program_with_several_entrypoints_asks_which(client: Client) -> None:
    run = client.run("entrypoints.py", check=False)
    assert run.code != 0
    assert "typed" in run.output and "other" in run.output
