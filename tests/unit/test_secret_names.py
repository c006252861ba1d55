from __future__ import annotations

import pytest

from amlctl.core.secret_names import is_secret, looks_secret, mask_command_line


@pytest.mark.parametrize(
    "name",
    [
        "API_KEY",
        "apiKey",
        "HF_TOKEN",
        "GITHUBTOKEN",
        "DbPassword",
        "X_SAS",
        "SIG",
        "AZURE_STORAGE_CONNECTION_STRING",
        "key",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["MONKEY", "EPOCHS", "SIGMA", "SASHA", "TOKENIZERS_PARALLELISM", "KEYBOARD", "SIGNAL"])
def test_names_that_only_look_alike(name: str) -> None:
    assert not looks_secret(name, "plain")


@pytest.mark.parametrize(
    "value", ["https://a.example/c?sv=1&sig=abc%3D", "AccountName=x;AccountKey=abc==", "https://me:pw@host.example/"]
)
def test_values_that_carry_a_secret(value: str) -> None:
    assert looks_secret("URL", value)


def test_masking_leaves_the_rest_of_the_command_line() -> None:
    words = ["amlctl", "submit", "x.py", "--env", "TOKEN=s3cret-value", "--env=PIN_KEY=7", "--", "--epochs", "17"]
    assert mask_command_line(words, {"s3cret-value", "7"}) == [
        "amlctl", "submit", "x.py", "--env", "TOKEN=***", "--env=PIN_KEY=***", "--", "--epochs", "17",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("--api-key", "abc", True),
        ("--api-key", "123456", True),
        ("model.apiToken", "abc", True),
        ("--max-tokens", "512", False),
        ("num_key_value_heads", "8", False),
        ("--use-auth-flow", "true", False),
        ("tokenizer", "bert", False),
        ("--tokens", "hf_abc", True),
        ("--api-key", "", False),
    ],
)
def test_secrets_of_a_script(name: str, value: str, expected: bool) -> None:
    assert is_secret(name, value) is expected
